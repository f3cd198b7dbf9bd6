"""Images per second of threads."""


def test_threads_share_out_the_batches(tf) -> None:
    from trainer.doctor import decode_rate

    seen = []
    rate = decode_rate.in_threads(seen.append, [1, 2, 3, 4, 5], threads=2, batch_size=8)
    calls = rate(0.01) / 8
    assert set(seen) == {1, 2, 3, 4, 5}
    # Each thread works as long at least, and one call comes before the clock starts.
    assert calls <= (len(seen) - 1) / 0.01
