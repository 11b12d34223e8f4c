/** Runs one library contestant (first argument) against an upstream (second argument) and counts its own CPU time. */
import * as Canned from "../Canned.ts"
import type * as Contestant from "../library/Contestant.ts"
import * as Load from "../Load.ts"

/** Each in its own process, which loads nothing of the others. */
const makers: Readonly<Record<string, () => Promise<{ readonly make: Contestant.Make }>>> = {
  "ai-sdk": () => import("../library/ai-sdk.ts"),
  langchain: () => import("../library/langchain.ts"),
  llm: () => import("../library/llm.ts"),
  sdk: () => import("../library/sdk.ts"),
  "sdk-undici": () => import("../library/sdk-undici.ts")
}

const [name = "", upstream] = process.argv.slice(2)
const load = makers[name]
if (load === undefined) throw new Error(`There is no library contestant "${name}"`)
const { make } = await load()
const contestant = await make(`${upstream}/v1`)

const chat = async () => {
  const text = await contestant.chat("bench-chat")
  if (!text.includes("scatters")) throw new Error(`Wrong answer: ${text}`)
}

const stream = (events: number) => async () => {
  const pieces = await contestant.stream(`bench-stream-${events}`)
  // The first event has a role and no text.
  if (pieces !== events - 1) throw new Error(`${pieces} pieces of text instead of ${events - 1}`)
}

const tools = (events: number) => {
  const expected = Canned.toolArguments(events)
  return async () => {
    const text = await contestant.tools(`bench-tools-${events}`)
    if (text !== expected) throw new Error(`Wrong arguments: ${text}`)
  }
}

const embed = async () => {
  const numbers = await contestant.embed("bench-embed")
  if (numbers !== Canned.texts.length * Canned.dimensions) throw new Error(`${numbers} numbers`)
}

const jobOf = (kind: unknown, events: number) => {
  switch (kind) {
    case "chat":
      return chat
    case "stream":
      return stream(events)
    case "tools":
      return tools(events)
    case "embed":
      return embed
    default:
      throw new Error(`There is no work "${String(kind)}"`)
  }
}

process.on("message", async (work) => {
  if (typeof work !== "object" || work === null || !("count" in work) || !("kind" in work)) return
  const job = jobOf(work.kind, "events" in work ? Number(work.events) : 0)
  const before = process.cpuUsage()
  await Load.loop(Number(work.count), 16, job)
  const { user, system } = process.cpuUsage(before)
  process.send?.({ spent: user + system })
})
// The probe lets go of the channel; here it is what keeps the process waiting for work.
process.channel?.ref()
process.send?.({ ready: true })
