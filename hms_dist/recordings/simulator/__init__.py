"""Parts of the EEG simulator; the command is `hms_dist.recordings.simulate`.

`cohort` plans patients, sessions and classes. `session` draws the events of one session (`background`, `patterns` timed
by `timeline`, `artifacts`) on the electrodes of `head`. The session is then rendered as EEG at 200 Hz and, from the
same events, as the 10-minute `spectrogram`. `votes` draws the experts' labels.
"""
