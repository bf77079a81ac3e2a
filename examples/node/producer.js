// Enqueues requests with the npm package celery-node.
//
// Usage: node producer.js [COUNT], with WORKER_REDIS_URL in the environment.

const celery = require("celery-node");

const url = process.env.WORKER_REDIS_URL || "redis://127.0.0.1:6379/0";
const count = Number(process.argv[2] || 1);

async function main() {
  // The second URL is of a result backend, which celery-node wants and nobody uses: results are stream entries.
  const client = celery.createClient(url, url, "responses.interactive");
  const task = client.createTask("responses.create");
  await client.isReady();
  for (let number = 1; number <= count; number++) {
    const request = {
      body: {
        model: "gpt-5.4-mini",
        input: [{ role: "user", content: `Grüße aus Node, ${number}!` }],
        max_output_tokens: 256,
      },
      metadata: { number: String(number) }, // comes back with the result
    };
    console.log("enqueued", task.applyAsync([request]).taskId);
  }
  await new Promise(setImmediate); // celery-node sends in the next turn; what it sends before it quits arrives
  await client.disconnect();
}

main();
