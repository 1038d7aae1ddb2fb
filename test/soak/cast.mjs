import { MessageChannel, Worker } from 'node:worker_threads'
import { needsTerminate, planned } from './deaths.mjs'
import { Random } from './random.mjs'
import { seats } from './schedule.mjs'
import { Starter } from './starter.mjs'

/** A thread that has been told to end has this long to do so. */
const dyingMs = 15_000

/**
 * The threads on their seats: starts them, ends them, and puts new ones in the place of the dead.
 *
 * State of a seat
 *   empty    nobody is there, or its host is not
 *   alive    its thread has been started
 *   dying    it has been told to end; an end in any other state was not planned
 *   leaving  it ends by itself, in good order
 */
export class Cast {
  #assignment
  #random
  #report
  #seats = seats.map((host, index) => ({ name: `seat ${index}`, host, state: 'empty', life: 0, figures: undefined }))
  #starter = new Starter((news) => this.#ended(news))
  #nest
  #answers = new Map()
  /** What the threads of all lives have counted. */
  #figures = []
  deaths = {}
  isOver = false

  /** `report` hears of every violation. */
  constructor({ assignment, seed, report }) {
    this.#assignment = assignment
    this.#random = new Random(seed)
    this.#report = report
  }

  /** Starts whoever is missing and can be started. */
  fill() {
    this.#nest ??= this.#newNest()
    for (const seat of this.#seats) {
      if (seat.state === 'empty' && this.#hostOf(seat)) this.#start(seat)
    }
  }

  get isComplete() {
    return this.#seats.every(({ state, isUp }) => state === 'alive' && isUp)
  }

  /** Who is not there, for people. */
  get missing() {
    const missing = this.#seats.filter(({ state, isUp }) => state !== 'alive' || !isUp)
    return missing.map(({ id, name, state, doom }) => `${id ?? name}: ${state} ${doom ?? ''}`).join(', ')
  }

  get isEmpty() {
    return this.#seats.every(({ state }) => state === 'empty')
  }

  /** Ends one thread in this way, or its neighbour if it is dead already. */
  kill({ kind, victim, ms }) {
    if (kind === 'nest') return this.#killNest()
    for (let i = 0; i < seats.length; i++) {
      const seat = this.#seats[(victim + i) % seats.length]
      if (seat.state !== 'alive') continue
      this.deaths[kind] = (this.deaths[kind] ?? 0) + 1
      this.#doom(seat, kind)
      if (kind !== 'terminate') seat.port.postMessage({ do: 'die', kind })
      const { id } = seat
      const terminate = () => seat.id === id && this.#terminate(seat)
      if (kind === 'terminate') terminate()
      else setTimeout(terminate, needsTerminate.includes(kind) ? ms : dyingMs).unref()
      return
    }
  }

  /** Gives all threads an order, and waits for their answers. */
  async tell(order, withinMs) {
    const alive = this.#seats.filter(({ state }) => state === 'alive')
    if (order.do === 'close') for (const seat of alive) seat.state = 'leaving'
    const answers = alive.map(async (seat) => {
      const answer = await new Promise((resolve) => {
        this.#answers.set(`${seat.id} ${order.do}`, resolve)
        setTimeout(resolve, withinMs, 'none').unref()
        seat.port.postMessage(order)
      })
      if (answer === 'none') {
        this.#report('hang', `${seat.name} has not done "${order.do}" within ${withinMs} ms`)
        return undefined
      }
      return answer
    })
    return (await Promise.all(answers)).filter((answer) => answer !== undefined)
  }

  /** What all threads of all lives have counted. */
  figures() {
    const all = { lives: this.#figures.length, acquires: 0, done: 0, errors: {}, worstStallMs: 0, worstLateMs: 0 }
    for (const { acquires, done, errors, worstStallMs, worstLateMs } of this.#figures) {
      all.acquires += acquires ?? 0
      all.done += done ?? 0
      for (const [name, count] of Object.entries(errors ?? {})) all.errors[name] = (all.errors[name] ?? 0) + count
      all.worstStallMs = Math.max(all.worstStallMs, Math.round(worstStallMs ?? 0))
      all.worstLateMs = Math.max(all.worstLateMs, Math.round(worstLateMs ?? 0))
    }
    return all
  }

  // ── Life ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Who starts the thread of a seat; undefined while that thread is not there itself. */
  #hostOf({ host }) {
    if (host === 'main') return this.#starter
    if (host === 'nest') return this.#nest && starterIn(this.#nest)
    const member = this.#seats[Number(host.split(' ')[1])]
    return member.state === 'alive' && member.isUp ? starterIn(member.port) : undefined
  }

  #newNest() {
    const nest = new Worker(new URL('./nest.mjs', import.meta.url))
    nest.on('message', (news) => this.#ended(news))
    nest.once('error', (error) => this.#report('unplanned', `the nest threw: ${error.stack}`))
    nest.once('exit', () => {
      if (this.#nest === nest) this.#nest = undefined
      this.#orphan('nest')
    })
    return nest
  }

  #killNest() {
    this.deaths['nest'] = (this.deaths['nest'] ?? 0) + 1
    for (const seat of this.#seats) if (seat.host === 'nest' && seat.state === 'alive') this.#doom(seat, 'nest')
    void this.#nest?.terminate()
  }

  #start(seat) {
    const { port1, port2 } = new MessageChannel()
    const id = `${seat.name}.${++seat.life}`
    const figures = {}
    this.#figures.push(figures)
    Object.assign(seat, { id, state: 'alive', isUp: false, doom: undefined, port: port1 })
    port1.on('message', (message) => this.#heard(seat, id, figures, message))
    const assignment = { ...this.#assignment, seat: id, seed: this.#random.from(0, 2 ** 31) }
    this.#hostOf(seat).start({ id, assignment, port: port2 })
  }

  #heard(seat, id, figures, { up, violation, figures: latest, news, answered, answer }) {
    if (up && seat.id === id) {
      seat.isUp = true
      // Some may have waited for it to start them.
      if (!this.isOver) this.fill()
    }
    if (violation) this.#report(violation.rule, violation.detail)
    if (latest) Object.assign(figures, latest)
    if (news) this.#ended(news)
    if (answered) this.#answers.get(`${id} ${answered}`)?.(answer ?? null)
  }

  #doom(seat, kind) {
    seat.state = 'dying'
    seat.doom = kind
  }

  #terminate(seat) {
    if (seat.doom !== undefined && !needsTerminate.includes(seat.doom) && seat.doom !== 'nest') {
      this.#report('hang', `${seat.id} has not ended within ${dyingMs} ms, told to die of "${seat.doom}"`)
    }
    this.#hostOf(seat)?.terminate(seat.id)
  }

  /** A thread has ended: `ended` is the life of its seat. */
  #ended({ ended, exitCode, error }) {
    const seat = this.#seats.find(({ id }) => id === ended)
    if (!seat) return
    const isPlanned =
      seat.state === 'leaving' ||
      (seat.state === 'dying' &&
        (error === undefined || error.text.includes(planned) || error.code === 'ERR_WORKER_OUT_OF_MEMORY'))
    if (!isPlanned || (seat.state === 'leaving' && exitCode !== 0)) {
      this.#report('unplanned', `${ended} (${seat.state}) ended with ${exitCode}: ${error?.text ?? 'no error'}`)
    }
    this.#vacate(seat)
    this.#orphan(`member ${seat.name.split(' ')[1]}`)
  }

  /** Threads end with the one that has started them, and nobody else is told. */
  #orphan(host) {
    for (const seat of this.#seats) if (seat.host === host && seat.state !== 'empty') this.#vacate(seat)
  }

  /** Its port is left to close by itself: there may be words in it that have not arrived. */
  #vacate(seat) {
    seat.state = 'empty'
    seat.id = undefined
    if (this.isOver) return
    // Somebody else comes, now or a little later.
    setTimeout(() => !this.isOver && this.fill(), this.#random.from(0, 200)).unref()
  }

  /** Ends whoever is left. */
  async end() {
    this.isOver = true
    for (const seat of this.#seats) {
      if (seat.state !== 'empty') this.#doom(seat, 'terminate')
      if (seat.host === 'main' && seat.id) this.#starter.terminate(seat.id)
    }
    await this.#nest?.terminate()
  }
}

/** The starter in another thread. */
function starterIn(port) {
  return {
    start: (order) => port.postMessage({ do: 'start', ...order }, [order.port]),
    terminate: (id) => port.postMessage({ do: 'terminate', id }),
  }
}
