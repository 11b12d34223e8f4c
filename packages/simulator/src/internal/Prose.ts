/** Short, believable answers that mention words of the prompt. */
import * as Hash from "./Hash.ts"

const openings = [
  "In short,",
  "The simple answer:",
  "Good question:",
  "Briefly,",
  "As a rule,",
  "Naïvely put,"
] as const

const sentences = [
  "{a} follows from {b}, and most of what people notice is the result of that.",
  "{a} depends on {b} more than on anything else.",
  "think of {a} as the visible side of {b}.",
  "{a} and {b} belong together, and one explains the other.",
  "what matters about {a} is how it changes with {b}.",
  "once {b} is clear, {a} is easy to see — step by step."
] as const

const fallbacks = ["the answer", "the question", "the details", "the context"] as const

/** Longer words would take more than one token. */
const words = (prompt: string): ReadonlyArray<string> => {
  const found = new Set<string>()
  for (const [word] of prompt.slice(0, 2000).matchAll(/(?<!\p{L})\p{L}{4,11}(?!\p{L})/gu)) {
    found.add(word)
    if (found.size === 12) break
  }
  return [...found]
}

/** The first word of the prompt that says something, for short strings. */
export const keyword = (prompt: string): string | undefined => words(prompt)[0]

/**
 * An answer decided by the prompt and the hash.
 *
 * @param sentenceCount how many sentences.
 */
export const answer = (prompt: string, hash: number, sentenceCount: number): string => {
  const known = words(prompt)
  const pick = <A>(choices: ReadonlyArray<A>, n: number): A | undefined =>
    choices[Math.floor(Hash.unit(hash, n) * choices.length)]
  const parts: Array<string> = []
  for (let index = 0; index < sentenceCount; index++) {
    const first = pick(known, index * 4) ?? pick(fallbacks, index * 4) ?? ""
    const others = known.filter((word) => word !== first)
    const second = pick(others, index * 4 + 1) ?? pick(fallbacks.slice(1), index * 4 + 1) ?? ""
    const sentence = (pick(sentences, index * 4 + 2) ?? sentences[0])
      .replace("{a}", first)
      .replace("{b}", second)
    parts.push(index === 0 ? `${pick(openings, 3) ?? openings[0]} ${sentence}` : capitalised(sentence))
  }
  return parts.join(" ")
}

const capitalised = (text: string): string => {
  const [first = ""] = text
  return first.toUpperCase() + text.slice(first.length)
}
