// Reads results as a consumer group with ioredis: each at least once, shared out among the processes of the group.
//
// Usage: node consumer.js [COUNT], with WORKER_REDIS_URL in the environment; goes on for ever without COUNT.

const os = require("node:os");
const Redis = require("ioredis");

const redis = new Redis(process.env.WORKER_REDIS_URL || "redis://127.0.0.1:6379/0");
const count = Number(process.argv[2] || Infinity);
const [stream, group, consumer] = ["responses:results", "node-shop", `${os.hostname()}-${process.pid}`];
const abandonedMs = 60000;

async function main() {
  await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM").catch((error) => {
    if (!error.message.startsWith("BUSYGROUP")) throw error; // else the group is there already
  });
  for (let done = 0; done < count; ) {
    for (const [id, fields] of await entries()) {
      consume(JSON.parse(fields[fields.indexOf("result") + 1]));
      await redis.xack(stream, group, id); // only now: a crash before this brings the result again
      done++;
    }
  }
  await redis.quit();
}

async function entries() {
  const [, abandoned] = await redis.xautoclaim(stream, group, consumer, abandonedMs, "0-0", "COUNT", 10);
  const read = ["GROUP", group, consumer, "COUNT", 10, "BLOCK", 1000, "STREAMS", stream, ">"];
  const fresh = (await redis.xreadgroup(...read)) || [];
  return [...abandoned, ...fresh.flatMap(([, found]) => found)];
}

// Whatever your service does with an answer; safe to repeat, by `request_id`.
function consume({ request_id, outcome, metadata, response, error }) {
  const parts = (response?.output || []).flatMap((item) => item.content || []);
  const text = parts.filter((part) => part.type === "output_text").map((part) => part.text);
  console.log(request_id, outcome, JSON.stringify(metadata), error ? error.code : text.join(""));
}

main();
