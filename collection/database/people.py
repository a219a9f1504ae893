"""The names that stand for people outside of this database: keyed hashes, so that an id, with which somebody votes,
never leaves it, and so that a file or a tombstone can be held against a person without knowing them."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from collection.database.dialects import insert_or_change
from collection.database.models import (
    BallotRow,
    EnrolmentRow,
    FaultRow,
    ParticipantRow,
    PersonKeyRow,
    TallyRow,
    VoteRow,
    now,
)

OURS: Final = "ours"
HASHED: Final = "person-"  # begins a name that one of our databases made
PICK_A_PIC: Final = "pickapic-"  # begins one that says nothing but a user's number in a data set of Pick-a-Pic's form
OUTSIDE: Final = re.compile(rf"{HASHED}[0-9a-f]{{32}}|{PICK_A_PIC}-?[0-9]{{1,19}}")
SECRET_VARIABLE: Final = "NPO_SECRET"  # makes the key where it is set, so that a database made anew has the same names


def is_outside_name(identity: str) -> bool:
    """Whether this is such a name already: it came with a file that others may have too."""
    return OUTSIDE.fullmatch(identity) is not None


def outside_name(identity: str, key: str) -> str:
    """The name of a person (or of whoever a file calls so) under `key`; what is such a name stays as it is."""
    if is_outside_name(identity):
        return identity
    return HASHED + hmac.new(key.encode(), _bytes(identity), hashlib.sha256).hexdigest()[:32]


def user_number(name: str) -> int:
    """The int64 that stands for a person in files of Pick-a-Pic's form; PICK_A_PIC with it is their name again."""
    number = name.removeprefix(PICK_A_PIC)
    if number != name and number.isdecimal() and int(number) < 2**63:
        return int(number)
    return int.from_bytes(hashlib.sha256(_bytes(name)).digest()[:8], "big") >> 1


def names_in_files(identity: str, keys: Iterable[str]) -> set[str]:
    """Every name under which files may tell of a person: hashed under each key, as a user's number, and as the number
    that files from before the keys gave the id itself."""
    names = {outside_name(identity, key) for key in keys}
    return names | {f"{PICK_A_PIC}{user_number(name)}" for name in (*names, identity)}


def _bytes(text: str) -> bytes:
    """Whatever a file calls somebody, halves of surrogate pairs included."""
    return text.encode("utf-8", "surrogatepass")


def keys_in(session: Session) -> dict[str, str]:
    """name -> key: our own, and those of databases that we took something over from."""
    return dict(session.execute(select(PersonKeyRow.name, PersonKeyRow.key)).tuples().all())


def make_key(session: Session) -> None:
    """Makes our own key where there is none yet."""
    secret = os.environ.get(SECRET_VARIABLE)
    key = hmac.new(secret.encode(), b"people", hashlib.sha256).hexdigest() if secret else secrets.token_hex(32)
    new = insert_or_change(session.get_bind().dialect.name, PersonKeyRow)
    made = new.values(name=OURS, key=key, created_at=now())
    session.connection().execute(made.on_conflict_do_nothing(index_elements=["name"]))


def people_named(session: Session, names: set[str]) -> Iterator[str]:
    """The participants with one of these names outside; looks at every one of them."""
    keys = keys_in(session).values()
    for identity in session.scalars(select(ParticipantRow.id).execution_options(yield_per=1000)):
        if names & names_in_files(identity, keys):
            yield identity


def rename_participant(session: Session, old: str, new: str) -> None:
    """Makes the participant `old` be called `new`, wherever that stands; nothing where somebody did so meanwhile."""
    person = session.get(ParticipantRow, old, with_for_update=True)
    if person is None:
        return
    session.add(ParticipantRow(id=new, flag=person.flag, created_at=person.created_at))
    session.flush()
    for table in (BallotRow, VoteRow, EnrolmentRow, FaultRow):
        session.execute(update(table).where(table.participant_id == old).values(participant_id=new))
    theirs = (TallyRow.dimension == "participant", TallyRow.key == old)
    session.execute(update(TallyRow).where(*theirs).values(key=new))
    session.delete(person)
