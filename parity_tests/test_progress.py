"""The line of progress on a terminal."""


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    from convert.progress import Progress

    monkeypatch.setattr("convert.progress.EVERY", -1)
    monkeypatch.setattr("convert.progress.QUIET", -1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        progress = Progress(2_000_000, "x.npz")
        assert list(progress.of([b"0" * 1_000_000] * 2)) == [b"0" * 1_000_000] * 2
        progress.close()
        err = capsys.readouterr().err
        assert ("x.npz: 50% of 2 MB" in err) == terminal
        assert bool(err) == terminal


def test_what_is_done_at_present_is_shown_on_a_terminal_only(monkeypatch, capsys):
    from convert.progress import Status

    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        with Status() as status:
            steps = ("matching, round 1: operation 1 of 9", "matching, round 2: operation 2 of 9")
            layers = ("proving: source", "proving: source: stem", "proving: source: head")
            for what in ("recording left", *steps, *layers):
                status.show(what)
        err = capsys.readouterr().err
        assert bool(err) == ("recording left" in err and "proving" in err) == terminal
        assert "operation 2" not in err and "head" not in err and err.endswith("\r\x1b[K" if terminal else "")


def test_a_header_stands_only_above_cells_on_the_rows_own_lines(monkeypatch):
    from convert.terminal import table

    monkeypatch.setattr("convert.terminal.columns", lambda _: 80)
    wide = "x" * 75
    assert table(("values", "A and B"), [("a", wide), ("b", wide)])[0].split() == ["values"]
    assert table(("values", "A and B"), [("a", wide), ("b", "1")])[0].split() == ["values", "A", "and", "B"]
