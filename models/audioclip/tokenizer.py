"""Text -> CLIP's byte-pair tokens. With the published merges the vocabulary has 49,408 entries; without any,
every byte is a token, and no file is needed."""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

from models.errors import InvalidOption, WeightsInvalid

MERGES = 48_894  # how many lines of the published file CLIP uses, after its first
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Tokenizer:
    """`merges` are pairs of symbols, the one to join first at the front."""

    def __init__(self, merges: Sequence[tuple[str, str]] = ()) -> None:
        letters = list(byte_letters().values())
        joined = [first + second for first, second in merges]
        symbols = [*letters, *(letter + WORD_END for letter in letters), *joined, START, END]
        self.numbers = {symbol: number for number, symbol in enumerate(symbols)}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Reads `bpe_simple_vocab_16e6.txt.gz`."""
        try:
            lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        except (OSError, EOFError, UnicodeDecodeError) as broken:
            raise WeightsInvalid(f"{path.name} is no gzip file of text: fetch it again.") from broken
        merges = [tuple(line.split()) for line in lines[1 : 1 + MERGES]]
        if len(merges) < MERGES or any(len(pair) != 2 for pair in merges):
            raise WeightsInvalid(f"{path.name} does not hold {MERGES} merges of two symbols: fetch it again.")
        return cls([(pair[0], pair[1]) for pair in merges])

    def __len__(self) -> int:
        return len(self.numbers)

    def __call__(self, texts: Sequence[str], context: int = 77) -> Tensor:
        """Sentences -> int64 [n, context]: start, tokens, end, zeros."""
        rows = torch.zeros(len(texts), context, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.numbers[START], *self.encode(text), self.numbers[END]]
            if len(numbers) > context:
                raise InvalidOption(f"The text {text[:40]!r}... has {len(numbers)} tokens; {context} fit.")
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def encode(self, text: str) -> list[int]:
        """A text's token numbers, without the marks of start and end."""
        letters = byte_letters()
        words: list[str] = WORDS.findall(clean(text))
        spelled = ("".join(letters[byte] for byte in word.encode()) for word in words)
        return [self.numbers[symbol] for word in spelled for symbol in self.merged(word)]

    def merged(self, word: str) -> list[str]:
        """A word's letters, joined pair by pair in the order of the merges."""
        if word in (START, END):
            return [word]
        symbols = [*word[:-1], word[-1] + WORD_END]
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self.ranks.get(pair, MERGES))
            if best not in self.ranks:
                break
            symbols = joined(symbols, best)
        return symbols


def joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of the pair, from the left, made one symbol."""
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


@lru_cache(maxsize=1)
def byte_letters() -> dict[int, str]:
    """A visible letter for each byte, in the vocabulary's order: first those that are visible themselves."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def clean(text: str) -> str:
    """Broken encodings and HTML entities repaired, white space single, letters small."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()
