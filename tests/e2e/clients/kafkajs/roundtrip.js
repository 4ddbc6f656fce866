// kafkajs: roundtrip.js BOOTSTRAP TOPIC GROUP COUNT produces that many records, reads all of the topic in a consumer group
// and prints them as JSON lines, in the order of partition and offset. The commit happens when the consumer stops.
const { Kafka, logLevel, CompressionTypes } = require("kafkajs");

const [bootstrap, topic, group, count] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "kafkajs", brokers: [bootstrap], logLevel: logLevel.ERROR });

async function produce() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const messages = [];
  for (let number = 1; number <= Number(count); number += 1) {
    messages.push({ key: `key-${number % 5}`, value: `kafkajs ${number}`, headers: { from: "kafkajs" } });
  }
  await producer.send({ topic, messages, acks: -1, compression: CompressionTypes.GZIP });
  await producer.disconnect();
}

async function consume() {
  const consumer = kafka.consumer({ groupId: group });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const found = [];
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${found.length} of ${count} records in 30 s`)), 30000).unref();
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        const headers = {};
        for (const [name, value] of Object.entries(message.headers)) headers[name] = value.toString();
        found.push({
          partition,
          offset: Number(message.offset),
          key: message.key?.toString(),
          value: message.value.toString(),
          headers,
        });
        if (found.length >= Number(count)) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  found.sort((a, b) => a.partition - b.partition || a.offset - b.offset);
  for (const record of found) console.log(JSON.stringify(record));
}

produce().then(consume).catch((error) => {
  console.error(error);
  process.exit(1);
});
