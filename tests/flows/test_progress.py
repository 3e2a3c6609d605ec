import io
import pickle
import time

from flows import progress
from flows.pipeline import StageContext
from flows.progress import PlainLines, Silent, clock, make_progress, track


def test_plain_lines_end_with_count_and_rate():
    stream = io.StringIO()
    assert list(track(PlainLines(stream), [1, 2, 3], "fit", unit="faces")) == [1, 2, 3]
    line = stream.getvalue()
    assert line.startswith("fit: 3/3 faces, ")
    assert line.endswith("/s\n")
    assert line.count("\n") == 1


def test_plain_lines_are_rare_and_say_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines.start("train", 1000, "steps")
    for _ in range(1000):
        now[0] += 0.05
        lines.advance(note="loss 0.5")
    lines.finish()
    printed = stream.getvalue().splitlines()
    assert 5 <= len(printed) <= 6
    assert printed[0] == "train: 200/1000 steps, 20/s, 40 s left (loss 0.5)"


def test_branches_count_apart():
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines.start("stage", 2, "shards")
    for name in ("a", "b"):
        list(track(lines.branch(), range(3), name))
        lines.advance()
    lines.finish()
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "a: 3/3 faces",
        "b: 3/3 faces",
        "stage: 2/2 shards",
    ]


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    assert isinstance(make_progress(io.StringIO()), PlainLines)


def test_bars_nest_and_close():
    bar = progress.Bar()
    bar.start("stage", 1, "shards")
    list(track(bar.branch(), range(2), "shard"))
    bar.advance()
    bar.finish()
    bar.finish()


def test_a_context_sent_to_another_process_leaves_its_progress_here(tmp_path):
    context = StageContext(None, {}, tmp_path, tmp_path, PlainLines(io.StringIO()))
    assert isinstance(pickle.loads(pickle.dumps(context)).progress, Silent)


def test_durations_in_words():
    assert [clock(8.2), clock(200), clock(7500)] == ["8 s", "3 min 20 s", "2 h 5 min"]
