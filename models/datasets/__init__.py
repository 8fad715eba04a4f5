"""Clips with truth: AVSBench as it lies on disk, and SynthAVS, which is drawn and played on the fly.

    clip.py        what a data set yields             views.py     other sounds, other layouts of any data set
    avsbench.py    S4, MS3 and AVSS: a table          labels.py    pictures and wavs as they really are
    audit.py       what is missing or odd in a folder
    synthavs.py    the benchmark: splits and probes   scenes.py    what a scene is, and how one is composed
    kinds.py       the twelve classes                 timbres.py, mixing.py      what is heard
    ceilings.py    what the deaf and the blind reach  shapes.py, drawing.py      what is seen
    layouts.py     SynthAVS as AVSBench folders       video.py     as mp4       sheet.py    as one picture

`python -m models.datasets synth OUT --layout s4` writes a data set, `check PATH` validates one.
"""
