"""Simulated recordings of a rainforest: calls of species in rain and insects, with annotations as RFCX's.

`species` describes the calls, `plan` draws which clip has which, `sound` computes samples, `write` the files.
"""
