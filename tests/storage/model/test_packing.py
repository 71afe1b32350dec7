"""Packing: which of two libraries did it makes no difference."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allsource.storage.model.packing import pack


class Name(str):
    """As an application might have its stream ids."""


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=40)
        | st.text(max_size=3).map(Name)
        | st.binary(max_size=300),
        lambda inner: (
            st.lists(inner, max_size=20)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=20)
        ),
        max_leaves=30,
    )
)
def test_packing_gives_the_bytes_of_msgpack(value: object) -> None:
    """Two libraries do it, the quicker one first; nobody at the other end may notice which."""
    assert pack(value) == msgpack.packb(value)


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**63) - 1, object()])
def test_what_msgpack_cannot_say_is_refused(value: object) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)):
        pack(value)
