from pipelines.notebook.tables import Listing, html_table, text_table


def test_a_cell_is_data_and_never_markup() -> None:
    page = html_table(["<i>"], [["<script>alert(1)</script>"]], title="<b>")
    assert "<script>" not in page and "<i>" not in page and "<b><b>" not in page
    assert "&lt;script&gt;" in page


def test_a_listing_is_a_sequence_that_shows_itself() -> None:
    listing = Listing([3, 1, 2], ("number", "twice"), lambda n: (n, n * 2.0))
    assert list(listing) == [3, 1, 2] and listing[1] == 1 and len(listing) == 3
    assert repr(listing[:2]) == "number  twice\n3       6\n1       2"
    assert listing[:1]._repr_html_().count("<tr>") == 2


def test_nothing_is_said_to_be_nothing() -> None:
    assert text_table(["a"], []) == "nothing"
    assert "nothing" in html_table(["a"], [])
    assert text_table(["a", "b"], [[None, 0.00123456]]) == "a  b\n   0.00123"
