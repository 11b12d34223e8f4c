/**
 * The line after an answer: model, tokens, cost, time.
 */
import type { Usage } from "@llm/core/Usage"
import * as Price from "./Price.ts"

/** What a receipt is made of. */
export interface Receipt {
  readonly model: string
  readonly usage: Usage | undefined
  readonly simulated: boolean
  /** Pico-dollars; `undefined` where it is not known, or nobody is billed. */
  readonly cost: bigint | undefined
  /** From the first attempt to the last byte, in milliseconds. */
  readonly duration: number
}

const grouped = (count: number): string => count.toLocaleString("en-US")

const tokens = (usage: Usage | undefined): string => {
  if (usage === undefined) return "tokens not reported"
  const cached = usage.cachedTokens === 0 ? "" : ` (${grouped(usage.cachedTokens)} cached)`
  return `${grouped(usage.inputTokens)}→${grouped(usage.outputTokens)} tok${cached}`
}

/** Milliseconds for a person: `40 ms`, `0.4 s`, `12.3 s`, `30 s`. */
export const seconds = (millis: number): string => {
  if (millis < 100) return `${Math.round(millis)} ms`
  const value = millis / 1000
  return `${value >= 10 && Number.isInteger(value) ? value : value.toFixed(1)} s`
}

/** The line: `gpt-6-luna · 812→344 tok (512 cached) · $0.0006 · 1.9 s`. */
export const format = (receipt: Receipt): string => {
  const { cost } = receipt
  const money = receipt.simulated ? "simulated" : cost === undefined ? "unpriced" : Price.format(cost)
  return [receipt.model, tokens(receipt.usage), money, seconds(receipt.duration)].join(" · ")
}
