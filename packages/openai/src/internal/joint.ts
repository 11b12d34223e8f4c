/**
 * Joins a second answer to a text that was delivered, without repeating or losing a character.
 *
 * The second answer begins somewhere in the delivered text: at its start after a restart, at its end after
 * a prefill, at the words that it was asked to begin with after an instruction. Each such place is a
 * reading. A reading holds once the answer has repeated the delivered text from there to its end; where
 * what holds is not the one that was asked for, or could be another one, the joint is not exact.
 */

/** How the second answer was asked for. */
export type Rule =
  /** From the start: it must repeat all. */
  | { readonly _tag: "Restart" }
  /** From `at`, and nothing else will do: a server that repeats more cannot be told from a text that does. */
  | { readonly _tag: "Prefill"; readonly at: number }
  /** From `at` or before it, with words there that the delivered text has only once. */
  | { readonly _tag: "Anchored"; readonly at: number }

/** The text after the joint; `inexact` where there can be none. */
export type Joined = { readonly rest: string } | "waiting" | "inexact"

export class Joint {
  /** The joint is made: what comes now is delivered as it is. */
  made = false
  private readonly delivered: string
  private readonly rule: Rule
  private answer = ""
  /** Places from which the answer has repeated the delivered text so far. */
  private readings: ReadonlyArray<number>
  constructor(delivered: string, rule: Rule) {
    this.delivered = delivered
    this.rule = rule
    // A server does not go on from behind the place that it was told.
    const count = rule._tag === "Restart" ? 1 : Math.min(rule.at + 1, delivered.length)
    this.readings = Array.from({ length: count }, (_, place) => place)
  }

  /** Takes the next piece of the answer. */
  push(piece: string): Joined {
    if (this.made) return { rest: piece }
    const { answer, delivered } = this
    const from = answer.length
    this.answer += piece
    this.readings = this.readings.filter((place) => {
      const end = Math.min(delivered.length - place, this.answer.length)
      return end <= from || this.answer.startsWith(delivered.slice(place + from, place + end), from)
    })
    return this.judge(false)
  }

  /** No more text comes. */
  end(): Joined {
    return this.made ? { rest: "" } : this.judge(true)
  }

  private judge(ended: boolean): Joined {
    const { answer, delivered, rule } = this
    const holds = (place: number) => delivered.length - place <= answer.length
    if (rule._tag !== "Prefill") {
      const place = this.readings.find(holds)
      if (place !== undefined) return this.make(place)
      return ended || this.readings.length === 0 ? "inexact" : "waiting"
    }
    const others = this.readings.filter((place) => place !== rule.at)
    if (others.some(holds)) return "inexact"
    const wanted = rule.at === delivered.length || this.readings.includes(rule.at)
    if (!wanted) return "inexact"
    // An answer that ended in the middle of the delivered text would not have been that text.
    const certain = ended || (others.length === 0 && answer.length > 0)
    if (certain && holds(rule.at)) return this.make(rule.at)
    return ended ? "inexact" : "waiting"
  }

  private make(place: number): Joined {
    this.made = true
    this.readings = []
    return { rest: this.answer.slice(this.delivered.length - place) }
  }
}

/** Characters that an anchor has at least: fewer could be an accident. */
const shortest = 24

/** Characters beyond which no model can be trusted to repeat a text as it was. */
const longest = 600

/**
 * Where a text's last words begin that it has only once; `undefined` where they would be too few or too many.
 */
export const anchor = (text: string): number | undefined => {
  if (text.length < shortest) return undefined
  for (let length = shortest; ; length *= 2) {
    const at = wordBefore(text, Math.max(0, text.length - length))
    if (text.length - at > longest) return undefined
    if (text.indexOf(text.slice(at)) === at) return at
  }
}

/** The start of the word at a place; the place itself, or the character's start, where words are endless. */
const wordBefore = (text: string, place: number): number => {
  for (let at = place; at >= Math.max(0, place - shortest); at--) {
    if (!isSpace(text, at) && (at === 0 || isSpace(text, at - 1))) return at
  }
  return isLow(text, place) ? place - 1 : place
}

const isSpace = (text: string, at: number): boolean => /\s/u.test(text.charAt(at))

/** The second half of a character of two. */
const isLow = (text: string, at: number): boolean => (text.charCodeAt(at) & 0xfc_00) === 0xdc_00

/** Whether a text ends in the first half of a character: no request can carry it. */
export const endsInHalf = (text: string): boolean =>
  text !== "" && (text.charCodeAt(text.length - 1) & 0xfc_00) === 0xd8_00
