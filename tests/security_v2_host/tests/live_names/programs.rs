//! Real programs against servers that only have names.
