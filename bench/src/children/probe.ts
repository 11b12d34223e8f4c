/**
 * Loaded into every measured process with `--import`: answers the parent's questions about this process over IPC,
 * so that the numbers are the process's own, in microseconds, and exist on every platform.
 */
import { Session } from "node:inspector/promises"

const session = new Session()

process.on("message", async (question) => {
  switch (question) {
    case "usage": {
      const { user, system } = process.cpuUsage()
      process.send?.({ cpu: user + system, rss: process.memoryUsage.rss() })
      return
    }
    case "vitals": {
      // With --expose-gc: what is left after it is what is kept.
      globalThis.gc?.()
      const open: Record<string, number> = {}
      for (const kind of process.getActiveResourcesInfo()) open[kind] = (open[kind] ?? 0) + 1
      const { heapUsed, rss } = process.memoryUsage()
      const { user, system } = process.cpuUsage()
      process.send?.({ cpu: user + system, rss, heapUsed, open })
      return
    }
    case "profile start": {
      // The inspector rather than --cpu-prof: start-up and warm-up stay out of the profile.
      session.connect()
      await session.post("Profiler.enable")
      await session.post("Profiler.setSamplingInterval", { interval: 250 })
      await session.post("Profiler.start")
      process.send?.({})
      return
    }
    case "profile stop": {
      const { profile } = await session.post("Profiler.stop")
      session.disconnect()
      process.send?.({ profile })
    }
  }
})

// A parent that dies must leave no servers behind, and the channel alone must not keep a finished process alive.
process.on("disconnect", () => process.exit())
process.channel?.unref()
