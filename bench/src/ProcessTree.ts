/** What a process and its children use, as Linux counts it: for contestants that are no Node processes. */
import { readdir, readFile } from "node:fs/promises"

/** `USER_HZ` and the page size of every Linux that Node runs on with four-kilobyte pages. */
const microsPerTick = 10_000
const pageBytes = 4_096

interface Stat {
  readonly pid: number
  readonly parent: number
  readonly ticks: number
  readonly pages: number
}

/** Fields by their place after the name, which is in brackets and may hold anything: proc(5). */
const read = async (pid: number): Promise<Stat | undefined> => {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined)
  if (text === undefined) return undefined
  const fields = text
    .slice(text.lastIndexOf(")") + 2)
    .split(" ")
    .map(Number)
  const field = (index: number) => fields[index] ?? 0
  // utime, stime, and those of children that have ended.
  const ticks = field(11) + field(12) + field(13) + field(14)
  return { pid, parent: field(1), ticks, pages: field(21) }
}

/** CPU time in microseconds, to the hundredth of a second; resident memory in bytes, shared pages counted in each. */
export const usage = async (root: number) => {
  const names = await readdir("/proc")
  const all = await Promise.all(names.filter((name) => /^\d+$/.test(name)).map((name) => read(Number(name))))
  const stats = all.filter((stat) => stat !== undefined)
  const total = { cpu: 0, rss: 0 }
  const family = [root]
  for (const pid of family) {
    for (const stat of stats) {
      if (stat.parent === pid) family.push(stat.pid)
      if (stat.pid !== pid) continue
      total.cpu += stat.ticks * microsPerTick
      total.rss += stat.pages * pageBytes
    }
  }
  return total
}
