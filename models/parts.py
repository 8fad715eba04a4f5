"""What strategies are made of: `networks.shared(part)` builds each part once from the process's networks."""

from __future__ import annotations

from models.audioclip.encoder import AudioClipEncoder, tokenizer
from models.heat_prompting import HeatPrompting
from models.mask_grid import MaskGrid
from models.networks import Networks
from models.prompting import Prompting
from models.recogniser import Recogniser
from models.segments import AUDIOCLIP_RATE, CLAP_RATE
from models.sound_maps import SoundMapper
from models.vocabularies import VocabularyName
from models.weights import FRAME, NAME


def audioclip(networks: Networks) -> AudioClipEncoder:
    """AudioCLIP with its tokenizer."""
    return AudioClipEncoder(networks["audioclip"], tokenizer(networks.weights))


def sound_mapper(networks: Networks) -> SoundMapper:
    """AudioCLIP's image and audio towers."""
    calibrated = networks.weights.calibration("audioclip").get(FRAME)
    return SoundMapper(networks.shared(audioclip), networks.batcher, calibrated)


def heat_prompting(networks: Networks) -> HeatPrompting:
    """AudioCLIP's image and audio towers, and SAM."""
    return HeatPrompting(networks.shared(sound_mapper), networks.shared(prompting))


def prompting(networks: Networks) -> Prompting:
    """SAM."""
    return Prompting(networks["sam"], networks.batcher)


def mask_grid(networks: Networks) -> MaskGrid:
    """SAM, asked everywhere."""
    return MaskGrid(networks["sam"], networks.batcher)


def clap_recogniser(networks: Networks) -> Recogniser:
    """CLAP."""
    return Recogniser(networks["clap"], CLAP_RATE, networks.batcher, *taught(networks, "clap"))


def audioclip_recogniser(networks: Networks) -> Recogniser:
    """AudioCLIP's audio and text towers."""
    encoder = networks.shared(audioclip)
    return Recogniser(encoder, AUDIOCLIP_RATE, networks.batcher, *taught(networks, "audioclip"))


def taught(networks: Networks, name: str) -> tuple[VocabularyName, float | None]:
    """The names that a network learnt to hear (the tiny ones have only been to SynthAVS), and the cosine that
    says which of them it hears, if that was measured."""
    calibrated = networks.weights.calibration(name).get(NAME)
    return "synthavs" if networks.identity(name).family == "tiny" else "audioset", calibrated
