// franz-go: main BOOTSTRAP TOPIC GROUP COUNT produces that many records, reads all of the topic in a consumer group, commits,
// and prints them as JSON lines in the order of partition and offset.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type line struct {
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       string            `json:"key"`
	Value     string            `json:"value"`
	Headers   map[string]string `json:"headers"`
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(bootstrap, topic, group, wanted string) error {
	count, err := strconv.Atoi(wanted)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.AllowAutoTopicCreation(),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for number := 1; number <= count; number++ {
		record := &kgo.Record{
			Topic:   topic,
			Key:     []byte(fmt.Sprintf("key-%d", number%5)),
			Value:   []byte(fmt.Sprintf("franz-go %d", number)),
			Headers: []kgo.RecordHeader{{Key: "from", Value: []byte("franz-go")}},
		}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	var found []line
	for len(found) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%d of %d records: %w", len(found), count, err)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			headers := map[string]string{}
			for _, header := range record.Headers {
				headers[header.Key] = string(header.Value)
			}
			found = append(found, line{record.Partition, record.Offset, string(record.Key), string(record.Value), headers})
		})
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if err := client.LeaveGroupContext(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	sort.Slice(found, func(a, b int) bool {
		if found[a].Partition != found[b].Partition {
			return found[a].Partition < found[b].Partition
		}
		return found[a].Offset < found[b].Offset
	})
	out := json.NewEncoder(os.Stdout)
	for _, record := range found {
		if err := out.Encode(record); err != nil {
			return err
		}
	}
	return nil
}
