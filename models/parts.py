"""What strategies are made of: `networks.shared(part)` builds each part once from the process's networks."""

from __future__ import annotations

from models.audioclip.encoder import AudioClipEncoder, tokenizer
from models.mask_grid import MaskGrid
from models.networks import Networks
from models.prompting import Prompting
from models.recogniser import Recogniser
from models.segments import AUDIOCLIP_RATE, CLAP_RATE
from models.sound_maps import SoundMapper


def audioclip(networks: Networks) -> AudioClipEncoder:
    """AudioCLIP with its tokenizer."""
    return AudioClipEncoder(networks["audioclip"], tokenizer(networks.weights))


def sound_mapper(networks: Networks) -> SoundMapper:
    """AudioCLIP's image and audio towers."""
    return SoundMapper(networks.shared(audioclip), networks.batcher)


def prompting(networks: Networks) -> Prompting:
    """SAM."""
    return Prompting(networks["sam"], networks.batcher)


def mask_grid(networks: Networks) -> MaskGrid:
    """SAM, asked everywhere."""
    return MaskGrid(networks["sam"], networks.batcher)


def clap_recogniser(networks: Networks) -> Recogniser:
    """CLAP."""
    return Recogniser(networks["clap"], CLAP_RATE, networks.batcher)


def audioclip_recogniser(networks: Networks) -> Recogniser:
    """AudioCLIP's audio and text towers."""
    return Recogniser(networks.shared(audioclip), AUDIOCLIP_RATE, networks.batcher)
