"""What CloudTrail is: keys, records, columns. Pure: no network, disk, clock or environment."""
