/** Patterns in which `*` stands for any number of any characters. */

/** Makes the test of a pattern; linear in the length of the text for each `*`. */
const make = (pattern: string): ((text: string) => boolean) => {
  const [head = "", ...rest] = pattern.split("*")
  const tail = rest.pop()
  if (tail === undefined) return (text) => text === pattern
  return (text) => {
    const end = text.length - tail.length
    if (end < head.length || !text.startsWith(head) || !text.endsWith(tail)) return false
    let from = head.length
    for (const piece of rest) {
      const at = text.indexOf(piece, from)
      if (at === -1 || at + piece.length > end) return false
      from = at + piece.length
    }
    return true
  }
}

/** Whether one of the patterns matches. */
export const any = (patterns: ReadonlyArray<string>): ((text: string) => boolean) => {
  const tests = patterns.map(make)
  return (text) => tests.some((test) => test(text))
}
