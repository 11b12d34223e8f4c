/**
 * Patterns that an application removes from every text that is kept: errors and rows are made where no layer reaches,
 * so these hold for the whole process.
 */
import { mark } from "./sweep.ts"

/** Of its own, so that nobody else's `lastIndex` counts. */
export const everywhere = (pattern: RegExp): RegExp =>
  new RegExp(pattern.source, `${pattern.flags.replaceAll(/[gy]/gu, "")}g`)

/** A pattern that matches nothing at all must not put a mark between any two letters. */
const marked = (match: string): string => (match === "" ? "" : mark)

/** Replaces whatever one of the patterns matches. */
export const removeAll = (text: string, patterns: Iterable<RegExp>): string => {
  let safe = text
  for (const pattern of patterns) safe = safe.replace(pattern, marked)
  return safe
}

const installed = new Set<ReadonlyArray<RegExp>>()
let changes = 0

/** Rises whenever the patterns change: whoever remembers a text must forget it. */
export const version = (): number => changes

/** Has the patterns hold; gives what takes them back. */
export const install = (patterns: ReadonlyArray<RegExp>): (() => void) => {
  const own = patterns.map(everywhere)
  installed.add(own)
  changes++
  return () => {
    installed.delete(own)
    changes++
  }
}

/** Replaces whatever a pattern matches that holds now. */
export const remove = (text: string): string => {
  if (installed.size === 0) return text
  let safe = text
  for (const patterns of installed) safe = removeAll(safe, patterns)
  return safe
}
