"""What every table of the state database is made of: texts and times as each database can hold them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, Text, TypeDecorator, false
from sqlalchemy.engine import Dialect


def clean(text: str) -> str:
    """`text` as every database can store it: no NUL (PostgreSQL has none), no lone surrogates (UTF-8 has none)."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="backslashreplace").decode()
    return text


class Str(TypeDecorator[str]):
    """Text from anywhere, an attacker's user agent included: stored cleaned, so that it never stops a commit."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean(value)


class Time(TypeDecorator[datetime]):
    """A naive UTC time. A time with a zone is a mistake that drivers would hide, each in its own way."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is not None:
            raise ValueError("times are naive UTC here, this one has a zone")
        return value


Id = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def count(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False, server_default=false())
