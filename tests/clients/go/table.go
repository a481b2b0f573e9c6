package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// row is a key, and what the store holds under it: a nil value where the key is absent.
type row struct {
	name  string
	key   []byte
	hash  uint64
	value []byte
}

// written is how the table writes bytes.
type written struct {
	Hex   string
	Times *int
}

func (w written) plain() ([]byte, error) {
	once, err := hex.DecodeString(w.Hex)
	if err != nil || w.Times == nil {
		return once, err
	}
	return bytes.Repeat(once, *w.Times), nil
}

func (r *row) UnmarshalJSON(text []byte) error {
	var raw struct {
		Name  string
		Key   written
		Hash  string
		Value *written
	}
	err := json.Unmarshal(text, &raw)
	if err != nil {
		return err
	}
	r.name = raw.Name
	if r.key, err = raw.Key.plain(); err != nil {
		return fmt.Errorf("%s: %w", raw.Name, err)
	}
	if r.hash, err = strconv.ParseUint(raw.Hash, 16, 64); err != nil {
		return fmt.Errorf("%s: %w", raw.Name, err)
	}
	if raw.Value != nil {
		r.value, err = raw.Value.plain()
	}
	return err
}

func readTable(path string) ([]row, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var table struct{ Keys []row }
	err = json.Unmarshal(text, &table)
	return table.Keys, err
}
