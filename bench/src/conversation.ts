/** What it costs to trim a long conversation whose messages are counted: the first time in a process, and later. */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import * as Schema from "effect/Schema"
import * as Options from "./Options.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"
import * as Statistics from "./Statistics.ts"

const decodeTimes = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Array(Schema.Number)))
const program = new URL("./children/conversation.ts", import.meta.url).pathname

const sizes = [
  { name: "some", title: "10,000 messages", count: 10_000 },
  { name: "twice", title: "20,000 messages", count: 20_000 }
]

/** Runs the measurement with the arguments of a command line; resolves when the report is printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse(
    "bench conversation",
    sizes.map(({ name }) => name),
    given
  )
  const asked = sizes.filter(({ name }) => options.only.length === 0 || options.only.includes(name))
  const recording = new Recording.Recording()
  for (let round = 0; round < (options.quick ? 3 : 7); round++) {
    for (const { count, name } of asked) {
      const { stdout } = await promisify(execFile)(process.execPath, [program, String(count), "50"], {
        env: { PATH: process.env["PATH"], NODE_ENV: "production" }
      })
      const [first = Number.NaN, ...later] = decodeTimes(stdout)
      recording.add("first", name, first)
      recording.add("later", name, Statistics.summarise(later).median)
    }
  }
  await Report.publish({
    name: "conversation",
    options,
    contestants: asked,
    missing: [],
    notes: ["Messages are counted before. The first time is of a process that did nothing else."],
    measures: [
      { name: "first", title: "the first time", unit: "ms", digits: 2, samples: recording.of("first") },
      { name: "later", title: "later", unit: "ms", digits: 2, samples: recording.of("later") }
    ],
    ratios: [
      {
        title: "later, twice the messages",
        measure: "later",
        above: "twice",
        below: "some",
        target: { atMost: 3 }
      }
    ],
    checks: {}
  })
}

if (import.meta.main) await run(process.argv.slice(2))
