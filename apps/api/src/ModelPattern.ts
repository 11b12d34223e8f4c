/**
 * Names with `*`, which stands for any number of any characters.
 */

/** Makes the test of a pattern; linear in the name for each `*`, since names come from callers. */
export const make = (pattern: string): ((name: string) => boolean) => {
  const [head = "", ...rest] = pattern.split("*")
  const tail = rest.pop()
  if (tail === undefined) return (name) => name === pattern
  return (name) => {
    const end = name.length - tail.length
    if (end < head.length || !name.startsWith(head) || !name.endsWith(tail)) return false
    let from = head.length
    for (const piece of rest) {
      const at = name.indexOf(piece, from)
      if (at === -1 || at + piece.length > end) return false
      from = at + piece.length
    }
    return true
  }
}

/** Whether one of the patterns fits; without a list every name does. */
export const any = (patterns: ReadonlyArray<string> | undefined): ((name: string) => boolean) => {
  if (patterns === undefined) return () => true
  const tests = patterns.map(make)
  return (name) => tests.some((test) => test(name))
}
