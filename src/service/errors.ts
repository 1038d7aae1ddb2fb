import { PoolError } from '../errors.ts'

/** A task was not done within `timeoutMs`, waiting for a worker included. It has been told to stop. */
export class TaskTimeoutError extends PoolError {
  override readonly name = 'TaskTimeoutError'
  readonly task: string
  readonly timeoutMs: number
  /** Where its time went: it still waited for a worker, or it ran. */
  readonly phase: 'queue' | 'run'

  constructor(task: string, timeoutMs: number, phase: 'queue' | 'run') {
    const where = phase === 'queue' ? 'it waited for a worker all the time' : 'it was running'
    super('ERR_TASK_TIMEOUT', `The task "${task}" was not done within ${timeoutMs} ms: ${where}.`)
    this.task = task
    this.timeoutMs = timeoutMs
    this.phase = phase
  }
}

/** All workers were busy, and `maxQueue` others were waiting for them. */
export class TaskQueueFullError extends PoolError {
  override readonly name = 'TaskQueueFullError'
  readonly task: string
  readonly queued: number
  readonly maxQueue: number

  constructor(task: string, queued: number, maxQueue: number) {
    super('ERR_TASK_QUEUE_FULL', `Cannot queue "${task}": ${queued} are waiting, and maxQueue is ${maxQueue}.`)
    this.task = task
    this.queued = queued
    this.maxQueue = maxQueue
  }
}

/** A task asked for another one, which could only have run once its own worker was free. */
export class TaskDeadlockError extends PoolError {
  override readonly name = 'TaskDeadlockError'
  readonly task: string
  readonly caller: string

  constructor(task: string, caller: string) {
    super(
      'ERR_TASK_DEADLOCK',
      `Cannot run "${task}" from "${caller}": all workers run tasks that wait for other tasks, so it would never start. Call its function directly, or use more workers.`,
    )
    this.task = task
    this.caller = caller
  }
}
