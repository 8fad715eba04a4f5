"""Text to token ids for the text towers of Grounding DINO (WordPiece) and CLAP (byte pairs).

The published towers read the vocabularies of bert-base-uncased and roberta-base. The tiny ones spell: their
vocabulary is single characters or bytes, so that nothing needs to be downloaded and any text has tokens.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

# Grounding DINO's code knows these ids of bert-base-uncased: they part the phrases of a caption.
CLS, SEP, FULL_STOP, QUESTION_MARK = 101, 102, 1012, 1029
TINY_WORDPIECES = QUESTION_MARK + 1
TINY_BYTES = 4 + 256  # <s>, <pad>, </s>, <unk>, then every byte


class TextTokens:
    """Encodes a list of texts, each cut to `limit` tokens, its first and last special ones included."""

    def __init__(self, tokenizer: Tokenizer, *, limit: int, padding: int) -> None:
        self._tokenizer, self._limit, self.padding = tokenizer, limit, padding

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """One list of ids a text, unpadded."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids [n, longest] padded on the right, and which of them are real, bool [n, longest]."""
        return pad([torch.tensor(ids) for ids in self(texts)], self.padding)


def pad(rows: Sequence[Tensor], value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rows [length, ...] -> [n, longest, ...] filled up with `value`, and the mask of the real entries."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


def bert(vocabulary: Path, limit: int) -> TextTokens:
    """WordPiece as bert-base-uncased, from its `vocab.txt`."""
    words = vocabulary.read_text(encoding="utf-8").splitlines()
    return _wordpiece({word: index for index, word in enumerate(words)}, limit)


def tiny_bert(limit: int) -> TextTokens:
    """WordPiece over single characters."""
    return _wordpiece(tiny_wordpieces(), limit)


def tiny_wordpieces() -> dict[str, int]:
    """Character -> id, with the special tokens at the ids that Grounding DINO expects."""
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": CLS, "[SEP]": SEP, ".": FULL_STOP, "?": QUESTION_MARK}
    inside = string.ascii_lowercase + string.digits
    starts = sorted(inside + "".join(set(string.punctuation) - {".", "?"}))
    pieces = [*starts, *(f"##{character}" for character in inside)]
    return special | {piece: SEP + 1 + index for index, piece in enumerate(pieces)}


def _wordpiece(vocabulary: dict[str, int], limit: int) -> TextTokens:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.enable_truncation(limit)
    return TextTokens(tokenizer, limit=limit, padding=vocabulary["[PAD]"])


def roberta(vocabulary: Path, merges: Path, limit: int) -> TextTokens:
    """Byte pairs as roberta-base, from its `vocab.json` and `merges.txt`."""
    pairs = [line.split(" ") for line in merges.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    ids = json.loads(vocabulary.read_text(encoding="utf-8"))
    return _byte_pairs(ids, [(pair[0], pair[1]) for pair in pairs if len(pair) == 2], limit)


def tiny_roberta(limit: int) -> TextTokens:
    """Single bytes, behind the special tokens at the ids of roberta-base."""
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _byte_pairs(ids | {byte: 4 + index for index, byte in enumerate(alphabet)}, [], limit)


def _byte_pairs(vocabulary: dict[str, int], merges: list[tuple[str, str]], limit: int) -> TextTokens:
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.enable_truncation(limit)
    return TextTokens(tokenizer, limit=limit, padding=vocabulary["<pad>"])
