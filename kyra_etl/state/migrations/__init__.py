"""The steps a state database takes from empty to what `kyra_etl.state.tables` describes."""
