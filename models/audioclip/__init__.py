"""AudioCLIP: an image, a text and an audio tower that meet in one space of 1024 numbers."""

from models.audioclip.audioclip import AudioCLIP, AudioCLIPConfig, Output, build, load, load_audioclip

__all__ = ["AudioCLIP", "AudioCLIPConfig", "Output", "build", "load", "load_audioclip"]
