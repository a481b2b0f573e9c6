// Command client reads a store by the contract and compares it with the table: client ADDRESS TABLE
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	rdrivev1 "rdrive/v1"
)

const deadline = 30 * time.Second // of each call

// stream is what one batch stream brought: the values by index, nil for an absent key.
type stream struct {
	values              [][]byte
	messages, fragments int
}

func read(reader rdrivev1.DataStoreReaderServiceClient, key []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	answer, err := reader.Read(ctx, &rdrivev1.ReadRequest{Key: key})
	if err != nil {
		return nil, err
	}
	return answer.GetEntry().GetPayload(), nil // nil where the entry is unset: no payload is empty
}

func readHashes(reader rdrivev1.DataStoreReaderServiceClient, hashes []uint64) (*stream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	messages, err := reader.BatchReadHashedKeys(ctx, &rdrivev1.BatchReadHashedKeysRequest{KeyHashes: hashes})
	if err != nil {
		return nil, err
	}
	got := &stream{}
	var parts []byte // of the value whose fragments are arriving
	for {
		message, err := messages.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		got.messages++
		for _, item := range message.GetItems() {
			if int(item.GetIndex()) != len(got.values) {
				return nil, fmt.Errorf("index %d comes where %d is due", item.GetIndex(), len(got.values))
			}
			switch outcome := item.GetOutcome().(type) {
			case *rdrivev1.BatchReadItem_Absent:
				got.values = append(got.values, nil)
			case *rdrivev1.BatchReadItem_Entry:
				got.values = append(got.values, outcome.Entry.GetPayload())
			case *rdrivev1.BatchReadItem_Fragment:
				if outcome.Fragment.GetPayloadOffset() != uint64(len(parts)) {
					return nil, fmt.Errorf("a fragment begins at %d, not %d", outcome.Fragment.GetPayloadOffset(), len(parts))
				}
				got.fragments++
				parts = append(parts, outcome.Fragment.GetData()...)
				if uint64(len(parts)) == outcome.Fragment.GetPayloadSize() {
					got.values = append(got.values, parts)
					parts = nil
				}
			case *rdrivev1.BatchReadItem_Error:
				return nil, fmt.Errorf("item %d: %s: %s", item.GetIndex(), outcome.Error.GetReason(), outcome.Error.GetMessage())
			default:
				return nil, fmt.Errorf("item %d: an outcome that this client doesn't know", item.GetIndex())
			}
		}
	}
	if parts != nil {
		return nil, errors.New("the stream ends in the middle of a value")
	}
	return got, nil
}

func same(a, b []byte) bool {
	return (a == nil) == (b == nil) && bytes.Equal(a, b)
}

func show(value []byte) string {
	if value == nil {
		return "absent"
	}
	return fmt.Sprintf("%d bytes", len(value))
}

// check tells what is wrong, and what was seen.
func check(reader rdrivev1.DataStoreReaderServiceClient, rows []row) (wrong []string, seen string, err error) {
	tell := func(format string, arguments ...any) { wrong = append(wrong, fmt.Sprintf(format, arguments...)) }
	hashes := make([]uint64, len(rows))
	for i, row := range rows {
		hashes[i] = xxh3.Hash(row.key)
		if hashes[i] != row.hash {
			tell("%s: hashed to %016x, not %016x", row.name, hashes[i], row.hash)
		}
		value, err := read(reader, row.key)
		if err != nil {
			return nil, "", err
		}
		if !same(value, row.value) {
			tell("%s: Read gives %s, not %s", row.name, show(value), show(row.value))
		}
	}

	got, err := readHashes(reader, hashes)
	if err != nil {
		return nil, "", err
	}
	if len(got.values) != len(rows) {
		tell("BatchReadHashedKeys answers %d keys of %d", len(got.values), len(rows))
	}
	for i, row := range rows[:min(len(rows), len(got.values))] {
		if !same(got.values[i], row.value) {
			tell("%s: BatchReadHashedKeys gives %s, not %s", row.name, show(got.values[i]), show(row.value))
		}
	}
	return wrong, fmt.Sprintf("%d keys hashed and read; one stream of %d messages, %d fragments among them",
		len(rows), got.messages, got.fragments), nil
}

func run(address, table string) error {
	rows, err := readTable(table)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	wrong, seen, err := check(rdrivev1.NewDataStoreReaderServiceClient(connection), rows)
	if err != nil {
		return err
	}
	for _, each := range wrong {
		fmt.Fprintln(os.Stderr, each)
	}
	if wrong != nil {
		return fmt.Errorf("%d answers are wrong", len(wrong))
	}
	fmt.Println("ok:", seen)
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: client ADDRESS TABLE")
		os.Exit(64)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
