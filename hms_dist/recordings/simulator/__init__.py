"""The parts of the EEG simulator; the verb is `hms_dist.recordings.simulate`.

`cohort` plans patients, sessions and classes; `session` draws what happens in one session (`background`,
`patterns` timed by `timeline`, `artifacts`) on the electrodes of `head`; the session is then rendered as EEG
at 200 Hz and, from the same events, as the 10-minute `spectrogram`; `labels` says what experts would see.
"""
