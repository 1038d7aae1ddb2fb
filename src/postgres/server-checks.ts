/** Together they let the server notice within half a minute that a client's host is gone, and at once that a client is. */
export const serverCheckParameters: Readonly<Record<string, string>> = {
  client_connection_check_interval: '2000',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
}
