"""Devices in files, one's own and published traces, and their faults."""

import csv
import dataclasses
import hashlib

import numpy as np
import pytest
from device_cases import DAY, INF, assert_same, devices_of, rows_of

from gossipjax import devices as dev
from gossipjax.tasks import DataUnavailable

# --- files of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "strict"])
def test_saved_devices_come_back(tmp_path, kind):
    machines = dataclasses.replace(dev.fitted(50, 1, availability=kind), notes=("a", "b: ü"))
    path = dev.save(machines, tmp_path / "phones.npz")
    back = dev.load(path)
    assert_same(back, machines, np.arange(50))
    assert (back.name, back.notes) == (machines.name, machines.notes)
    dev.save(dev.uniform(1), path)
    assert dev.load(path).notes == ()
    assert [file.name for file in tmp_path.iterdir()] == ["phones.npz"]


def test_files_that_are_no_devices_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(ValueError, match=r"no file .*x\.npz"):
        dev.load(path)
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(ValueError, match=r"x\.npz is no \.npz file of plain arrays"):
        dev.load(path)
    np.savez(path, a=np.ones(1))
    with pytest.raises(ValueError, match=r"x\.npz does not hold devices"):
        dev.load(path)
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(ValueError, match=r"x\.npz is no \.npz file of plain arrays"):
        dev.load(path)
    dev.save(dev.uniform(2), path)
    np.savez(path, **{**np.load(path), "city": np.array([0, 9])})
    with pytest.raises(ValueError, match=r"x\.npz: city\[1\]=9: must"):
        dev.load(path)
    whole = dev.save(dev.fitted(300, 0), path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"x\.npz is no \.npz file"):
        dev.load(path)
    with pytest.raises(ValueError, match="no folder"):
        dev.save(dev.uniform(2), tmp_path / "absent" / "x.npz")


def test_csv_in_both_forms(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "\ufeffid,compute_ms_per_sample, upload_kbps,download_kbps\na,250,8,16\n\nb,500,80.8,160\n", "utf-8"
    )
    machines = dev.read_csv(path, latency_seconds=np.array([[0.0, 1.0], [2.0, 0.0]]))
    np.testing.assert_array_equal(machines.seconds_per_sample, [0.25, 0.5])
    np.testing.assert_array_equal(machines.upload_bytes_per_second, [1000.0, 10_100.0])
    np.testing.assert_array_equal(machines.download_bytes_per_second, [2000.0, 20_000.0])
    assert machines.latency_seconds(1, 0) == 2.0
    path.write_text("bandwidth_kbps,compute_ms_per_sample\n8,1\n")
    machines = dev.read_csv(path, bits_per_kilobit=1024)
    assert machines.upload_bytes_per_second.tolist() == machines.download_bytes_per_second.tolist() == [1024.0]


CSV_FAULTS = {
    "no line": ("", "is empty"),
    "header only": ("compute_ms_per_sample,bandwidth_kbps\n", "is empty"),
    "no compute": ("bandwidth_kbps\n1\n", "lacks the column compute_ms_per_sample"),
    "no bandwidth": ("compute_ms_per_sample,upload_kbps\n1,1\n", "lacks the column download_kbps"),
    "negative": ("compute_ms_per_sample,bandwidth_kbps\n1,1\n2,-3\n", "line 3: bandwidth_kbps '-3' must be a positive"),
    "NaN": ("compute_ms_per_sample,bandwidth_kbps\nnan,1\n", "line 2: compute_ms_per_sample 'nan' must"),
    "infinite": ("compute_ms_per_sample,bandwidth_kbps\n1,inf\n", "line 2: bandwidth_kbps 'inf' must"),
    "text": ("compute_ms_per_sample,bandwidth_kbps\n1,fast\n", "line 2: bandwidth_kbps 'fast' must"),
    "thousands": ("compute_ms_per_sample,bandwidth_kbps\n1,1_000\n", "line 2: bandwidth_kbps '1_000' must"),
    "both directions and one": (
        "compute_ms_per_sample,bandwidth_kbps,upload_kbps\n1,1,2\n",
        "columns bandwidth_kbps and upload_kbps: the former covers both",
    ),
    "both directions and each": (
        "compute_ms_per_sample,download_kbps,upload_kbps,bandwidth_kbps\n1,1,2,3\n",
        "columns bandwidth_kbps and upload_kbps and download_kbps",
    ),
    "a column twice": ("compute_ms_per_sample,bandwidth_kbps, bandwidth_kbps\n1,1,2\n", "'bandwidth_kbps' twice"),
    "a name twice": ("id,id,compute_ms_per_sample,bandwidth_kbps\na,b,1,1\n", "'id' twice"),
    "another unit": ("compute_ms_per_sample,bandwidth_kbps,upload_mbps\n1,1,2\n", "unknown column 'upload_mbps'"),
    "misspelt": ("compute_ms_per_sample,upload_kbps,downlaod_kbps\n1,1,2\n", "unknown column 'downlaod_kbps'"),
    "capitals": ("Compute_ms_per_sample,bandwidth_kbps\n1,1\n", "unknown column 'Compute_ms_per_sample'"),
    "semicolons": (
        "compute_ms_per_sample;bandwidth_kbps\n1;1\n",
        "unknown column 'compute_ms_per_sample;band",
    ),
    "no name": ("compute_ms_per_sample,bandwidth_kbps,\n1,1,\n", "unknown column ''"),
    "short line": ("compute_ms_per_sample,bandwidth_kbps\n1\n", "line 2: 1 cells under 2 columns"),
}


@pytest.mark.parametrize("fault", CSV_FAULTS)
def test_csv_faults_name_file_and_line(tmp_path, fault):
    text, message = CSV_FAULTS[fault]
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.csv.*{message}"):
        dev.read_csv(path)


def test_intervals_with_a_period(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"offsets": np.array([0, 2, 3]), "on_s": np.array([1, 3, 0]), "off_s": np.array([2, 3, 4])}
    np.savez(path, period_s=np.int32(4), **arrays)
    times = dev.read_availability(path)
    assert rows_of(times) == [[(1.0, 2.0)], [(0.0, 4.0)]]  # [3, 3) holds no time
    np.savez(path, period_s=np.array([4.0, 5.5]), **arrays)
    assert dev.read_availability(path).period_s.tolist() == [4.0, 5.5]


def test_windows_keep_the_hour_of_the_clock(tmp_path):
    """A one-day and a two-day window that begin at some hour; an interval across a multiple of the window is cut."""
    path = tmp_path / "windows.npz"
    start = np.array([3 * DAY + 5 * 3600, 4 * DAY + 3600])
    on = np.array([3 * DAY + 6 * 3600, 3 * DAY + 20 * 3600, 5 * DAY + 3600])
    off = on + np.array([3600, 8 * 3600, 3600])
    np.savez(
        path,
        offsets=np.array([0, 2, 3]),
        on_s=on,
        off_s=off,
        trace_start_s=start,
        trace_end_s=start + np.array([DAY, 2 * DAY]),
    )
    times = dev.read_availability(path)
    hour = 3600.0
    assert rows_of(times) == [
        [(0.0, 4 * hour), (6 * hour, 7 * hour), (20 * hour, DAY)],
        [(DAY + hour, DAY + 2 * hour)],
    ]
    machines = devices_of(times)
    for t in np.arange(DAY, 3 * DAY, 1800):  # device 0 at the clock's hours 20..4 and 6..7
        assert dev.online(machines, float(t))[0] == ((t // 3600) % 24 in (20, 21, 22, 23, 0, 1, 2, 3, 6))


NPZ_FAULTS = {
    "no key": ({"period_s": None}, r"lacks \['trace_start_s', 'trace_end_s'\]"),
    "no offsets": ({"offsets": None}, r"lacks \['offsets'\]"),
    "overlap": ({"on_s": np.array([0, 1])}, r"device 0, interval 1: \[1, 4\) s begins before"),
    "swapped": ({"off_s": np.array([2, 1])}, r"interval 1: \[2, 1\) s must end after"),
    "beyond": ({"period_s": np.array(3)}, r"interval 1: \[2, 4\) s ends beyond the period"),
    "short": ({"off_s": np.array([2])}, "2 values of on_s and 1 of off_s"),
    "offsets beyond": ({"offsets": np.array([0, 7, 2]), "period_s": np.array(9)}, "offsets must lie in 0..2"),
    "offsets empty": ({"offsets": np.zeros(0, int)}, "at least one device"),
    "offsets of floats": ({"offsets": np.array([0.0, 1.0])}, "offsets=.*must be whole numbers"),
    "periods": ({"period_s": np.ones(3)}, "one number, or one for each device"),
    "window floats": (
        {"period_s": None, "trace_start_s": np.zeros(1), "trace_end_s": np.ones(1)},
        "trace_start_s must be a vector of whole seconds",
    ),
    "window exceeded": (
        {"period_s": None, "trace_start_s": np.array([1]), "trace_end_s": np.array([9])},
        r"interval 0: \[-1, 1\) s begins before 0",
    ),
    "window empty": (
        {"period_s": None, "trace_start_s": np.array([4]), "trace_end_s": np.array([4])},
        "period_s .* must be positive",
    ),
    "windows of others": (
        {"period_s": None, "trace_start_s": np.array([0, 0]), "trace_end_s": np.array([9, 9])},
        "2 trace_start_s, 2 trace_end_s and 2 offsets",
    ),
}


@pytest.mark.parametrize("fault", NPZ_FAULTS)
def test_faults_of_interval_files_name_the_file(tmp_path, fault):
    change, message = NPZ_FAULTS[fault]
    arrays = {"offsets": np.array([0, 2]), "on_s": np.array([0, 2]), "off_s": np.array([2, 4]), "period_s": np.array(5)}
    path = tmp_path / "mine.npz"
    np.savez(path, **{name: array for name, array in {**arrays, **change}.items() if array is not None})
    with pytest.raises(ValueError, match=rf"mine\.npz.*{message}"):
        dev.read_availability(path)


# --- published traces: small files in their form ----------------------------------------------------------------------


LATENCY = np.array([[0.02, 10.75, -0.5], [500.0, 0.0, 3.25], [399.5, 400.0, 27.6]], np.float32)


def write_traces(folder):
    """Seven devices, three cities; of two phones in the strict log, 998 others never qualify."""
    rng = np.random.default_rng(0)
    lines = [(k, 10 + k, round(kbps, 1)) for k, kbps in enumerate(rng.uniform(1000, 9000, 7))]
    with (folder / "device_capacity.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("device_id", "compute_ms_per_sample", "bandwidth_kbps"), *lines])
    np.savez(folder / "latency_ms.npz", latency_ms=LATENCY)
    intervals = {"offsets": np.array([0, 1, 3]), "on_s": np.array([10, 0, 60]), "off_s": np.array([20, 30, 60])}
    np.savez(folder / "availability_charging_synth.npz", period_s=np.int32(100), **intervals)
    window = {"trace_start_s": np.array([0, 0]), "trace_end_s": np.array([DAY, 2 * DAY])}
    np.savez(folder / "availability_strict.npz", **window, **intervals)
    return np.array([kbps for _, _, kbps in lines])


def test_traces_follow_the_conventions_of_plexus(tmp_path):
    kbps = write_traces(tmp_path)
    machines = dev.from_traces(9, 5, folder=tmp_path)
    expected = np.floor(kbps)[np.arange(9) % 7] * 128
    np.testing.assert_array_equal(machines.upload_bytes_per_second, expected)
    np.testing.assert_array_equal(machines.download_bytes_per_second, expected)
    # Milliseconds to seconds: one rounding.
    np.testing.assert_allclose(np.sort(machines.seconds_per_sample[:7]), np.arange(10, 17) / 1e3, rtol=1e-15)
    assert machines.city.tolist() == [0, 1, 2] * 3
    ms = np.array([[0, 10, 0], [400, 0, 3], [399, 400, 27]])
    np.testing.assert_allclose(machines.city_latency_seconds, ms / 1e3, rtol=1e-15)
    assert any("of 9 entries, 1 below 0 ms were raised to 0 and 1 above 400 ms" in note for note in machines.notes)
    assert any("9 nodes share 7 devices" in note for note in machines.notes)
    fine = dev.from_traces(2, 5, folder=tmp_path, whole_milliseconds=False).city_latency_seconds
    np.testing.assert_allclose(fine, np.clip(LATENCY.astype(float), 0, 400) / 1e3, rtol=1e-15)


def test_traces_shuffle_only_what_they_should(tmp_path):
    write_traces(tmp_path)
    one, two = (dev.from_traces(7, seed, folder=tmp_path) for seed in (0, 1))
    np.testing.assert_array_equal(one.upload_bytes_per_second, two.upload_bytes_per_second)
    assert (one.seconds_per_sample != two.seconds_per_sample).any()
    shuffled = dev.from_traces(7, 0, folder=tmp_path, bandwidth_order="random")
    assert (shuffled.upload_bytes_per_second != one.upload_bytes_per_second).any()
    assert sorted(shuffled.upload_bytes_per_second) == sorted(one.upload_bytes_per_second)
    np.testing.assert_array_equal(shuffled.seconds_per_sample, one.seconds_per_sample)


@pytest.mark.parametrize("kind", [None, "charging", "strict", "fedscale_synth"])
def test_adding_nodes_to_traces_changes_no_other_node(tmp_path, kind):
    write_traces(tmp_path)
    few, many, again = (
        dev.from_traces(n, 2, folder=tmp_path, availability=kind, bandwidth_order="random") for n in (5, 20, 20)
    )
    assert_same(few, many, np.arange(5))
    assert_same(again, many, np.arange(20))


def test_traces_of_availability(tmp_path):
    write_traces(tmp_path)
    charging = dev.from_traces(4, 0, folder=tmp_path, availability="charging")
    rows = rows_of(charging.availability)
    assert sorted(rows[:2]) == [[(0.0, 30.0)], [(10.0, 20.0)]]
    assert rows[2:] == rows[:2]
    assert any("1 empty intervals of availability_charging_synth.npz" in note for note in charging.notes)
    strict = dev.from_traces(1000, 0, folder=tmp_path, availability="strict")
    assert sorted(row for row in rows_of(strict.availability) if row) == [[(0.0, 30.0)], [(10.0, 20.0)]]
    assert any("998 of 1000 phones never qualify" in note for note in strict.notes)


READ = {
    "device_capacity.csv": None,
    "latency_ms.npz": None,
    "availability_strict.npz": "strict",
    "availability_charging_synth.npz": "charging",
}


@pytest.mark.parametrize(("name", "kind"), READ.items())
@pytest.mark.parametrize("beside", [True, False], ids=["in the folder", "in its parent"])
def test_a_trace_file_is_the_one_whose_checksum_is_listed(tmp_path, name, kind, beside):
    folder = tmp_path / "mine"
    folder.mkdir()
    write_traces(folder)
    path = folder / name
    sums, entry = (folder, name) if beside else (tmp_path, f"mine/{name}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    note = f"{name}: sha256 {sha256[:12]}, in no SHA256SUMS"
    assert note in dev.from_traces(3, 0, folder=folder, availability=kind).notes
    (sums / "SHA256SUMS").write_text(f"{sha256}  {entry}\n")
    assert note not in dev.from_traces(3, 0, folder=folder, availability=kind).notes
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=rf"{name} is corrupt .* expected {sha256}"):
        dev.from_traces(3, 0, folder=folder, availability=kind)


def test_absent_traces_tell_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("GOSSIPJAX_DATA", raising=False)
    with pytest.raises(DataUnavailable, match=r"set GOSSIPJAX_DATA .* or pass folder="):
        dev.from_traces(3, 0)
    monkeypatch.setenv("GOSSIPJAX_DATA", str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"traces.device_capacity\.csv is missing"):
        dev.from_traces(3, 0)
    (tmp_path / "traces").mkdir()
    write_traces(tmp_path / "traces")
    assert dev.from_traces(3, 0).num_nodes == 3
    (tmp_path / "traces" / "availability_strict.npz").unlink()
    with pytest.raises(DataUnavailable, match=r"availability_strict\.npz is missing"):
        dev.from_traces(3, 0, availability="strict")


LATENCY_FAULTS = {
    "oblong": (np.ones((2, 3)), r"latency_ms is float64 of shape \(2, 3\)"),
    "empty": (np.ones((0, 0)), r"of shape \(0, 0\)"),
    "NaN": (np.array([[0.0, np.nan], [1.0, 0.0]]), r"latency_ms, entry \(0, 1\): nan ms must be finite"),
    "infinite": (np.array([[0.0, 1.0], [INF, 0.0]]), r"latency_ms, entry \(1, 0\): inf ms must be finite"),
    "negative": (np.array([[0.0, -1.5], [1.0, 0.0]]), r"latency_ms, entry \(0, 1\): -1\.5 ms .* at least -1"),
}


@pytest.mark.parametrize("fault", LATENCY_FAULTS)
def test_faults_of_latency_name_file_and_entry(tmp_path, fault):
    write_traces(tmp_path)
    array, message = LATENCY_FAULTS[fault]
    np.savez(tmp_path / "latency_ms.npz", latency_ms=array)
    with pytest.raises(ValueError, match=rf"latency_ms\.npz.*{message}"):
        dev.from_traces(2, 0, folder=tmp_path)


def test_a_capacity_below_one_kilobit_is_refused(tmp_path):
    write_traces(tmp_path)
    (tmp_path / "device_capacity.csv").write_text("compute_ms_per_sample,bandwidth_kbps\n20,0.5\n")
    with pytest.raises(ValueError, match=r"device_capacity\.csv, bandwidth_kbps, entry 0: 0\.5 is below 1"):
        dev.from_traces(2, 0, folder=tmp_path)
