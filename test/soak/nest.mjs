// A thread that never loads millpond, and starts threads that do.
import { parentPort } from 'node:worker_threads'
import { Starter } from './starter.mjs'

const starter = new Starter((news) => parentPort.postMessage(news))
parentPort.on('message', (order) => starter.obey(order))
