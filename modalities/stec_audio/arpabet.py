"""eSpeak's phonemes in the field's symbols: ARPABET without stress, with AX for the neutral vowel and SIL for silence.

Length, stress and the accents' shades of one sound are folded together; vowels coloured by an r go to the plain vowel.
"""

_ESPEAK = {
    "SIL": "_ _: _:: _! _| ||",
    "AA": "0 0# A: A@ A A# A~ Q",
    "AE": "a aa &",
    "AH": "V V#",
    "AO": "O: O2 O@ o@ O oU@ O# O~",
    "AW": "aU aU@",
    "AX": "@ @2 @- a# @# @5",
    "AY": "aI aI3 aI@ aI2",
    "B": "b",
    "CH": "tS",
    "D": "d d# d[",
    "DH": "D",
    "EH": "E e@ E2 E# E@ eI@ EE e",
    "ER": "3 3: VR IR UR 3r",
    "EY": "eI e:",
    "F": "f",
    "G": "g",
    "HH": "h h# H",
    "IH": "I I2 I# i@ i@3 I@",
    "IY": "i i: i2",
    "JH": "dZ",
    "K": "k x",
    "L": "l l# l- l^ L @L",
    "M": "m m- m#",
    "N": "n n- n# n^",
    "NG": "N",
    "OW": "oU o o: o#",
    "OY": "OI OI@ Oi",
    "P": "p",
    "R": "r r- r# R *",
    "S": "s",
    "SH": "S",
    "T": "t t# t2 t[ ?",
    "TH": "T",
    "UH": "U U@ U# U2",
    "UW": "u: u u# ju:",
    "V": "v v#",
    "W": "w w#",
    "Y": "j ; j#",
    "Z": "z z#",
    "ZH": "Z",
}

PHONES = tuple(_ESPEAK)
"""The names of the labels: SIL is 0."""

_NUMBER = {name: number for number, names in enumerate(_ESPEAK.values()) for name in names.split()}

_STRESS = "',%="


def phone(name: str) -> int | None:
    """The label of a phoneme as eSpeak NG calls it, stressed or not; None if English has no such sound."""
    return _NUMBER.get(name.lstrip(_STRESS))
