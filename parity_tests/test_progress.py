"""The line of progress on a terminal."""


def test_progress_is_drawn_on_a_terminal_only(monkeypatch, capsys):
    from convert.progress import Progress

    monkeypatch.setattr("convert.progress.EVERY", -1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        progress = Progress(2_000_000, "x.npz")
        assert list(progress.of([b"0" * 1_000_000] * 2)) == [b"0" * 1_000_000] * 2
        progress.close()
        err = capsys.readouterr().err
        assert ("x.npz: 50% of 2 MB" in err) == terminal
        assert bool(err) == terminal
