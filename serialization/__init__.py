"""How weights get in and out: safe reading, whole writing, strict loading, renaming."""
