// franz-go: a topic made on first use, produce, a group that commits and goes on, lag.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "franz: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func read(ctx context.Context, seeds kgo.Opt, name string, count int) map[string]bool {
	reader, err := kgo.NewClient(seeds, kgo.ConsumerGroup(name), kgo.ConsumeTopics(name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	check(err, "consumer")
	defer reader.Close()
	seen := map[string]bool{}
	for len(seen) < count {
		fetches := reader.PollFetches(ctx)
		check(fetches.Err(), "fetch")
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	check(reader.CommitUncommittedOffsets(ctx), "commit")
	return seen
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	seeds := kgo.SeedBrokers(os.Args[1])
	name := fmt.Sprintf("franz-%d", time.Now().UnixNano())

	producer, err := kgo.NewClient(seeds, kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(name))
	check(err, "producer")
	defer producer.Close()
	for n := range 1000 {
		producer.Produce(ctx, kgo.StringRecord(fmt.Sprint(n)), func(_ *kgo.Record, err error) { check(err, "produce") })
	}
	check(producer.Flush(ctx), "flush")

	if seen := read(ctx, seeds, name, 1000); len(seen) != 1000 {
		check(fmt.Errorf("%d records", len(seen)), "first reading")
	}
	check(producer.ProduceSync(ctx, kgo.StringRecord("later")).FirstErr(), "produce")
	admin := kadm.NewClient(producer)
	lag := func() int64 {
		lags, err := admin.Lag(ctx, name)
		check(err, "lag")
		check(lags.Error(), "lag")
		return lags[name].Lag.Total()
	}
	if lag() != 1 {
		check(fmt.Errorf("%d, not 1", lag()), "lag")
	}
	if seen := read(ctx, seeds, name, 1); !seen["later"] || len(seen) != 1 {
		check(fmt.Errorf("%v", seen), "second reading")
	}
	_, err = admin.DeleteGroup(ctx, name)
	check(err, "delete group")
	_, err = admin.DeleteTopics(ctx, name)
	check(err, "delete topic")
	fmt.Println("franz-go: ok")
}
