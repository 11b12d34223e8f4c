/** As much of an entry as decides what it belongs to. */
interface Entry {
  readonly message: {
    readonly role: string
    readonly tool_call_id?: string
    readonly tool_calls?: ReadonlyArray<{ readonly id: string }> | null | undefined
  }
  readonly tokens: number
  readonly time: number
  readonly pinned: boolean
}

/**
 * The units of a conversation: messages that stay or go as one, numbered in the order of their first messages.
 *
 * Numbers in few arrays rather than an object for each: a conversation may have many thousands.
 */
export interface Units {
  readonly count: number
  /** For each message its unit. */
  readonly byEntry: Int32Array
  readonly tokens: Float64Array
  /** Of a unit's newest message, in milliseconds since the epoch. */
  readonly times: Float64Array
  /** 1 for those that never go: system, developer or pinned. */
  readonly kept: Uint8Array
  /** Of those that may go, the one with the last message; -1 if there is none. */
  readonly newest: number
}

/**
 * A reply belongs to the last message before it that asked for it; a reply that nobody asked for stands
 * alone.
 */
export const unitsOf = (entries: ReadonlyArray<Entry>): Units => {
  const { length } = entries
  const byEntry = new Int32Array(length)
  const tokens = new Float64Array(length)
  const times = new Float64Array(length)
  const kept = new Uint8Array(length)
  const askedBy = new Map<string, number>()
  let count = 0
  for (let index = 0; index < length; index++) {
    const entry = entries[index]
    if (entry === undefined) continue
    const { message } = entry
    const { role } = message
    let unit = count
    if (role === "tool" && message.tool_call_id !== undefined)
      unit = askedBy.get(message.tool_call_id) ?? count
    byEntry[index] = unit
    if (unit === count) {
      count += 1
      tokens[unit] = entry.tokens
      times[unit] = entry.time
    } else {
      tokens[unit] = (tokens[unit] ?? 0) + entry.tokens
      times[unit] = Math.max(times[unit] ?? 0, entry.time)
    }
    if (entry.pinned || role === "system" || role === "developer") kept[unit] = 1
    const calls = message.tool_calls
    if (calls != null) for (const call of calls) askedBy.set(call.id, unit)
  }
  let last = length - 1
  while (last >= 0 && kept[byEntry[last] ?? 0] === 1) last--
  return { count, byEntry, tokens, times, kept, newest: last < 0 ? -1 : (byEntry[last] ?? -1) }
}
