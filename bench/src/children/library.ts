/** Runs one library contestant (first argument) against an upstream (second argument) and counts its own CPU time. */
import * as Canned from "../Canned.ts"
import * as Llm from "../library/llm.ts"
import * as Sdk from "../library/sdk.ts"
import * as SdkUndici from "../library/sdk-undici.ts"
import * as Load from "../Load.ts"

const makers = { llm: Llm.make, sdk: Sdk.make, "sdk-undici": SdkUndici.make }

const [name, upstream] = process.argv.slice(2)
const make = Object.entries(makers).find(([key]) => key === name)?.[1]
if (make === undefined) throw new Error(`There is no library contestant "${name}"`)
const contestant = await make(`${upstream}/v1`)

const chat = async () => {
  const text = await contestant.chat("bench-chat")
  if (!text.includes("scatters")) throw new Error(`Wrong answer: ${text}`)
}

const stream = (events: number) => async () => {
  const seen = await contestant.stream(`bench-stream-${events}`)
  // The upstream's end adds the chunk with the finish reason; `[DONE]` is no chunk.
  if (seen !== events + Canned.endEvents - 1) throw new Error(`${seen} chunks instead of ${events + 1}`)
}

process.on("message", async (work) => {
  if (typeof work !== "object" || work === null || !("count" in work) || !("events" in work)) return
  const before = process.cpuUsage()
  const job = Number(work.events) === 0 ? chat : stream(Number(work.events))
  await Load.loop(Number(work.count), 16, job)
  const { user, system } = process.cpuUsage(before)
  process.send?.({ spent: user + system })
})
// The probe lets go of the channel; here it is what keeps the process waiting for work.
process.channel?.ref()
process.send?.({ ready: true })
