"""From events and tables to label rows."""

import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset
from hms_dist.imports.events import read_bids, read_csv_bi, read_rec
from hms_dist.imports.rows import Row, Texts, grid, inside, rows_by_overlap, rows_of_events
from hms_dist.imports.source import Event, Stretch
from hms_dist.imports.table import match_files, read_label_table

LAB = Dataset(
    name="lab", classes=("seizure", "rest"), label_texts={"Sz start": "seizure", "eyes open": "rest", "artefact": None}
)
EACH = Dataset(name="each", classes=("spike", "slow", "beta"), target="yes_no")


def by_overlap(events, centres, dataset=LAB, background=None):
    return rows_by_overlap(
        [Event(*event) for event in events], np.array(centres, float), dataset, Texts(dataset), background
    )


def test_a_window_gets_the_class_that_covers_most_of_it() -> None:
    events = [(0, 14, "rest"), (14, 21, "SZ START"), (21, 23, "eyes open")]
    rows = by_overlap(events, [5, 15, 25])
    assert rows == [Row(5, (0, 1)), Row(15, (1, 0))]


def test_what_no_event_covers_has_no_row_or_the_background() -> None:
    events = [(12, 18, "seizure"), (24, 28, "seizure")]
    assert by_overlap(events, [5, 15, 25]) == [Row(15, (1, 0))]
    assert by_overlap(events, [5, 15, 25], background="rest") == [Row(5, (0, 1)), Row(15, (1, 0)), Row(25, (0, 1))]


def test_overlapping_events_of_a_class_count_once() -> None:
    """Twenty channels with the same 4 s of seizure do not outvote 5 s of rest."""
    events = [(10, 14, "seizure")] * 20 + [(14, 19, "rest")]
    assert by_overlap(events, [15]) == [Row(15, (0, 1))]


def test_overlap_against_a_count_on_a_fine_grid(rng) -> None:
    starts = rng.uniform(0, 300, 60).round(2)
    events = [Event(at, at + length, str(rng.choice(["seizure", "rest"]))) for at, length in
              zip(starts, rng.uniform(0, 20, 60).round(2), strict=True)]  # fmt: skip
    centres = grid(300, 7, 10)
    fine = np.arange(0, 330, 0.01) + 0.005
    covered = {name: np.zeros(len(fine), bool) for name in LAB.classes}
    for event in events:
        covered[event.text] |= (fine >= event.start_s) & (fine < event.end_s)
    expected = []
    for centre in centres:
        here = (fine >= centre - 5) & (fine < centre + 5)
        counts = [int(covered[name][here].sum()) for name in LAB.classes]
        free = int((~covered["seizure"] & ~covered["rest"])[here].sum())
        if max(counts) >= free and max(counts) > 0:
            expected.append(Row(float(centre), (1, 0) if counts[0] >= counts[1] else (0, 1)))
    assert rows_by_overlap(events, centres, LAB, Texts(LAB), None) == expected


def test_yes_no_classes_are_each_by_themselves() -> None:
    events = [(0, 10, "spike"), (4, 30, "slow"), (11, 14, "beta")]
    assert by_overlap(events, [5, 15, 45], EACH) == [Row(5, (1, 1, 0)), Row(15, (0, 1, 0))]
    assert by_overlap(events, [45], EACH, "absent") == [Row(45, (0, 0, 0))]


def test_texts_are_found_by_table_class_and_kaggles_name_and_unknown_ones_are_counted() -> None:
    texts = Texts(LAB)
    assert [texts.place(text) for text in (" sz START ", "Rest", "artefact", "lunch", "lunch")] == [
        0,
        1,
        None,
        None,
        None,
    ]
    assert texts.unknown == {"lunch": 2}
    assert texts.found == {"seizure": 1, "rest": 1}
    assert [Texts(HMS).place(text) for text in ("LPD", "lpd", "GRDA")] == [1, 1, 4]


def test_a_row_an_event_has_a_vote_for_each_of_the_same_time() -> None:
    events = [
        Event(3, 4, "seizure"),
        Event(1, 2.5, "rest"),
        Event(3, 4, "seizure"),
        Event(3, 4, "rest"),
        Event(5, 6, "?"),
    ]
    assert rows_of_events(events, LAB, Texts(LAB)) == [Row(1.75, (0, 1)), Row(3.5, (2, 1))]
    assert rows_of_events([Event(0, 1, "spike")] * 3, EACH, Texts(EACH)) == [Row(0.5, (1, 0, 0))]


def test_centres() -> None:
    assert grid(45, 10, 10).tolist() == [5, 15, 25, 35]
    assert grid(50, 10, 10).tolist() == [5, 15, 25, 35, 45]
    assert grid(50, 4, 10).tolist() == [5 + 4 * n for n in range(11)]
    assert grid(7.3, 10, 10).tolist() == [3.65]


def test_rows_outside_of_the_recording_and_in_gaps_are_dropped() -> None:
    stretches = [Stretch(0, 20), Stretch(52, 28)]
    rows = [Row(at, (1, 0)) for at in (-1, 5, 19, 26, 50, 53, 79, 81)]
    kept = inside(rows, stretches, 80, 10)
    assert [row.centre_s for row in kept] == [5, 19, 53, 79]
    assert inside([Row(1.5, (1, 0))], [Stretch(0, 3)], 3, 10) == [Row(1.5, (1, 0))]


def test_bids(tmp_path) -> None:
    path = tmp_path / "sub-01_events.tsv"
    path.write_text("onset\tduration\ttrial_type\n1.5\tn/a\trest\n3\t4\tseizure\n9\t1\tn/a\n")
    assert read_bids(path) == [Event(1.5, 1.5, "rest"), Event(3, 7, "seizure")]
    path.write_text("onset\tduration\teventType\tdateTime\n0\t30\tsz\t2019-01-01\n")
    assert read_bids(path) == [Event(0, 30, "sz")]


def test_tusz(tmp_path) -> None:
    path = tmp_path / "a.csv_bi"
    path.write_text(
        "# version = csv_v1.0.0\n# bname = aaaaaaac_s001_t000\n# duration = 301.0000 secs\n#\n"
        "channel,start_time,stop_time,label,confidence\nTERM,0.0000,36.8868,bckg,1.0000\n"
        "TERM,36.8868,183.3055,seiz,1.0000\n"
    )
    assert read_csv_bi(path) == [Event(0, 36.8868, "bckg"), Event(36.8868, 183.3055, "seiz")]


def test_tuev(tmp_path) -> None:
    path = tmp_path / "a.rec"
    path.write_text("8,192.2,193.2,2\n9,192.2,193.2,2\n8,194.0,195.0,6\n")
    events = read_rec(path)
    assert events == [Event(192.2, 193.2, "gped"), Event(192.2, 193.2, "gped"), Event(194, 195, "bckg")]
    dataset = Dataset(name="tuev", classes=("gped", "bckg"))
    assert [row.votes for row in rows_of_events(events, dataset, Texts(dataset))] == [(2, 0), (0, 1)]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_bids, "onset\tduration\n1\t2\n", None),
        (read_bids, "onset\tduration\ttrial_type\nx\t2\trest\n", "row 2, column onset: expected seconds, found 'x'"),
        (read_bids, "time\tduration\ttrial_type\n1\t2\trest\n", "column onset is missing"),
        (read_csv_bi, "channel,start_time,stop_time,label\nA,5,4,x\n", "row 2: expected an end after 5 s, found 4 s"),
        (read_csv_bi, "channel,start,stop,label\nA,5,6,x\n", "column start_time is missing"),
        (read_csv_bi, b"\xff\xfe", "not a table of UTF-8 text"),
        (read_rec, "1,0,1,7\n", "row 1: expected a code of 1 to 6, found '7'"),
        (read_rec, "1,nan,1,2\n", "row 1, column start: expected seconds, found 'nan'"),
        (read_rec, "1,0\n", "row 1, column stop: expected seconds, found ''"),
    ],
)
def test_malformed_event_files(tmp_path, read, content, message) -> None:
    path = tmp_path / "events"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if message is None:
        assert read(path) == []
        return
    with pytest.raises(UserError, match=f"events: .*{message}"):
        read(path)


def table(tmp_path, text, dataset=LAB):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_label_table(path, dataset, Texts(dataset))


def test_tables_of_votes(tmp_path) -> None:
    found = table(tmp_path, "file,time_s,seizure_vote,rest_vote,patient\na,25,3,1,p1\na,35.001,0,2,p1\nb,5,1,0,p2\n")
    assert found["a"].rows == [Row(25, (3, 1)), Row(35, (0, 2))]
    assert (found["a"].patient, found["b"].patient) == ("p1", "p2")
    unknown = table(tmp_path, "file,time_s,spike_vote,slow_vote,beta_vote\na,25,1,,0\n", EACH)
    assert unknown["a"].rows == [Row(25, (1, None, 0))]


def test_tables_of_labels_at_a_time_count_votes(tmp_path) -> None:
    found = table(tmp_path, "file,time_s,label\na,25,seizure\na,25,rest\na,25,sz start\na,5,artefact\n")
    assert found["a"].rows == [Row(25, (2, 1))]


def test_tables_of_events_and_of_whole_files(tmp_path) -> None:
    assert table(tmp_path, "file,start_s,end_s,label\na,1,2,rest\n")["a"].events == [Event(1, 2, "rest")]
    (event,) = table(tmp_path, "file,label\na,rest\n")["a"].events
    assert event.end_s > 1e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,time_s,seizure_vote\na,1,1\n", "column rest_vote is missing"),
        ("file,seizure_vote,rest_vote\na,1,1\n", "column time_s is missing"),
        ("name,label\na,rest\n", "column file is missing"),
        ("file,start_s,label\na,1,rest\n", "column start_s needs the other"),
        ("file,start_s,end_s,label\na,3,1,rest\n", "row 2: expected an end after 3 s"),
        ("file,time_s,label\na,-3,rest\n", "row 2, column time_s: expected a number of at least 0"),
        ("file,time_s,seizure_vote,rest_vote\na,1,0,0\n", "row 2: expected a number of votes for each class"),
        ("file,time_s,seizure_vote,rest_vote\na,1,,1\n", "row 2: expected a number of votes for each class"),
        ("file,label,patient\na,rest,x\na,rest,y\n", "row 3, column patient: expected one patient for each file, 'x'"),
        ("file,label\n", "no rows; expected at least one"),
    ],
)
def test_malformed_tables(tmp_path, text, message) -> None:
    with pytest.raises(UserError, match=message):
        table(tmp_path, text)


def test_files_are_matched_by_path_name_or_stem(tmp_path) -> None:
    found = table(tmp_path, "file,label\nx/a.edf,rest\nb,rest\nc.edf,rest\n")
    path = tmp_path / "labels.csv"
    recordings = ["x/a.edf", "y/a.edf", "y/b.edf", "c.edf", "d.edf"]
    assert sorted(match_files(path, found, recordings)) == ["c.edf", "x/a.edf", "y/b.edf"]
    with pytest.raises(UserError, match=r"row 3, column file: .* found 'b', which matches no recording"):
        match_files(path, found, ["x/a.edf", "c.edf"])
    with pytest.raises(UserError, match="'a', which matches 2 recordings"):
        match_files(path, table(tmp_path, "file,label\na,rest\n"), recordings)
