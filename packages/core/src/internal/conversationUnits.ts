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

/** Messages that stay or go as one. */
export interface Unit {
  readonly tokens: number
  /** Of its newest message, in milliseconds since the epoch. */
  readonly time: number
  /** System, developer or pinned: it never goes. */
  readonly isKept: boolean
}

/** The units of a conversation. */
export interface Units {
  /** In the order of their first messages. */
  readonly all: ReadonlyArray<Unit>
  /** For each message its unit. */
  readonly byEntry: ReadonlyArray<Unit>
  /** Of those that may go, the one with the last message. */
  readonly newest: Unit | undefined
}

/**
 * A reply belongs to the last message before it that asked for it; a reply that nobody asked for stands
 * alone.
 */
export const unitsOf = (entries: ReadonlyArray<Entry>): Units => {
  interface Building extends Unit {
    tokens: number
    time: number
    isKept: boolean
  }
  const all: Array<Building> = []
  const byEntry: Array<Building> = []
  const askedBy = new Map<string, Building>()
  for (const { message, pinned, time, tokens } of entries) {
    let unit =
      message.role === "tool" && message.tool_call_id !== undefined
        ? askedBy.get(message.tool_call_id)
        : undefined
    if (unit === undefined) {
      unit = { tokens: 0, time, isKept: false }
      all.push(unit)
    }
    byEntry.push(unit)
    unit.tokens += tokens
    unit.time = Math.max(unit.time, time)
    unit.isKept ||= pinned || message.role === "system" || message.role === "developer"
    for (const { id } of message.tool_calls ?? []) askedBy.set(id, unit)
  }
  return { all, byEntry, newest: byEntry.findLast(({ isKept }) => !isKept) }
}
