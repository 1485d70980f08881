"""How well tokens can be heard: a decoder speaks them, and judges compare the sound with the recording."""

from spintok.evaluate.resynthesis.judges import Heard, Judges, load_judges
from spintok.evaluate.resynthesis.metric import METRIC, Resynthesis, resynthesize
from spintok.evaluate.resynthesis.naturalness import Naturalness, Quality
from spintok.evaluate.resynthesis.phone_errors import PhoneErrors
from spintok.evaluate.resynthesis.pitch import PitchErrors, pitch, pitch_errors
from spintok.evaluate.resynthesis.recognizer import Recognizer, words_of
from spintok.evaluate.resynthesis.voice import VoiceEmbedder

__all__ = [
    "METRIC",
    "Heard",
    "Judges",
    "Naturalness",
    "PhoneErrors",
    "PitchErrors",
    "Quality",
    "Recognizer",
    "Resynthesis",
    "VoiceEmbedder",
    "load_judges",
    "pitch",
    "pitch_errors",
    "resynthesize",
    "words_of",
]
