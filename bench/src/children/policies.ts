/** Runs one policies contestant (first argument) and counts its own CPU time. */
import * as Bare from "../policies/bare.ts"
import * as Bottleneck from "../policies/bottleneck.ts"
import * as Cockatiel from "../policies/cockatiel.ts"
import type { Work } from "../policies/Contestant.ts"
import * as Llm from "../policies/llm.ts"
import * as Opossum from "../policies/opossum.ts"

const contestants = {
  bare: Bare.contestant,
  llm: Llm.contestant,
  cockatiel: Cockatiel.contestant,
  opossum: Opossum.contestant,
  bottleneck: Bottleneck.contestant
}

const [, , name] = process.argv
const contestant = Object.entries(contestants).find(([key]) => key === name)?.[1]
if (contestant === undefined) throw new Error(`There is no policies contestant "${name}"`)

let prepared: { readonly key: string; readonly work: Work } | undefined

process.on("message", async (question) => {
  if (typeof question !== "object" || question === null || !("count" in question)) return
  const { job, size, count } = { job: "", size: 1, ...question }
  const prepare = contestant[job]
  if (prepare === undefined) throw new Error(`${name} cannot do ${job}`)
  const key = `${job}/${size}`
  // One at a time: what another job left in memory must not be paid for by this one.
  if (prepared?.key !== key) prepared = { key, work: await prepare(size) }
  const before = process.cpuUsage()
  await prepared.work(Number(count))
  const { user, system } = process.cpuUsage(before)
  process.send?.({ spent: user + system })
})
process.channel?.ref()
process.send?.({ ready: true })
