"""How the commands print."""

from pipelines.commands.options import coloured, print_table


def test_what_a_table_shows_is_data_and_never_markup(capsys) -> None:
    rows = [(coloured("failed"), "/tmp/[/x]"), (coloured("done"), "[red]a[/]")]
    print_table(("outcome", "reason"), rows, "nothing")
    assert capsys.readouterr().out.splitlines() == [
        "outcome  reason",
        "failed   /tmp/[/x]",
        "done     [red]a[/]",
    ]


def test_no_blanks_trail_in_a_file(capsys) -> None:
    print_table(("run", "reason"), [("a", "long"), ("b", "")], "nothing")
    assert capsys.readouterr().out.splitlines() == ["run  reason", "a    long", "b"]
