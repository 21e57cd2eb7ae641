import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage.merkle import merkle_root

# The reference implementation's own vectors (certificate-transparency, merkle_tree_test).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                 "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("count", ROOTS)
def test_it_is_the_root_of_rfc_6962(count: int) -> None:
    assert merkle_root(LEAVES[:count]) == ROOTS[count]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.data())
def test_every_change_changes_it(records: list[bytes], data: st.DataObject) -> None:
    root = merkle_root(records)
    i = data.draw(st.integers(0, len(records) - 1))
    assert merkle_root([*records[:i], records[i] + b"x", *records[i + 1 :]]) != root
    assert merkle_root(records[:i] + records[i + 1 :]) != root
    assert merkle_root([*records, records[i]]) != root


def test_records_may_be_streamed() -> None:
    assert merkle_root(iter(LEAVES)) == ROOTS[8]
