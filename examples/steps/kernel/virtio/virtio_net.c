// Copyright (c) The nomad-driver-unikernel authors
// SPDX-License-Identifier: MPL-2.0

// The network device: frames are copied between the queues' own buffers and the
// stack's, which keeps either side's memory bounded whatever the other does.

#include <string.h>

#include "../kernel.h"
#include "virtio.h"

enum { RECEIVE = 0, TRANSMIT = 1 };
enum { BUFFER = 2048, MAX_BUFFERS = 128, PAGE = 4096 };
enum { DESC_WRITE = 2, AVAIL_NO_INTERRUPT = 1 };

static struct virtq rx, tx;
static uint8_t *rx_buffers, *tx_buffers;
static size_t header_len; // of struct virtio_net_hdr, before each frame
static bool advises_mtu;
static uint16_t tx_free;  // descriptors that the device does not have

static uint16_t buffer_count(const struct virtq *q)
{
	return q->size < MAX_BUFFERS ? q->size : MAX_BUFFERS;
}

// queue_create lays a queue out as the legacy interface demands: descriptors and
// the available ring together, the used ring on the next page.
static bool queue_create(struct virtq *q, uint16_t index, uint8_t **buffers)
{
	size_t used_at, bytes;
	uint8_t *memory;

	q->index = index;
	q->size = virtio_queue_size(index);
	if (q->size == 0)
		return false;
	used_at = q->size * sizeof(struct virtq_desc) + 6 + 2 * (size_t)q->size;
	used_at = (used_at + PAGE - 1) & ~(size_t)(PAGE - 1);
	bytes = used_at + 6 + 8 * (size_t)q->size;
	memory = memory_take(bytes, PAGE);
	*buffers = memory_take((size_t)buffer_count(q) * BUFFER, PAGE);
	if (!memory || !*buffers)
		return false;
	q->desc = (struct virtq_desc *)memory;
	q->avail = (struct virtq_avail *)(memory + q->size * sizeof(struct virtq_desc));
	q->used = (struct virtq_used *)(memory + used_at);
	for (uint16_t i = 0; i < buffer_count(q); i++)
		q->desc[i].addr = (uintptr_t)(*buffers + (size_t)i * BUFFER);
	virtio_queue_start(q);
	return true;
}

static void queue_offer(struct virtq *q, uint16_t id)
{
	q->avail->ring[q->avail->idx % q->size] = id;
	virtio_barrier();
	q->avail->idx++;
	virtio_barrier();
}

static bool negotiate(void)
{
	uint64_t features = virtio_features();

	features &= VIRTIO_F_ANY_LAYOUT | VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MAC | VIRTIO_NET_F_MTU;
	advises_mtu = features & VIRTIO_NET_F_MTU;
	virtio_accept_features(features);
	header_len = 10;
	if (!(features & VIRTIO_F_VERSION_1))
		return true;
	header_len = 12;
	virtio_set_status(virtio_status() | VIRTIO_STATUS_FEATURES_OK);
	return virtio_status() & VIRTIO_STATUS_FEATURES_OK;
}

static bool start(void)
{
	virtio_set_status(0);
	virtio_set_status(VIRTIO_STATUS_ACKNOWLEDGE);
	virtio_set_status(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	if (!negotiate() || !queue_create(&rx, RECEIVE, &rx_buffers) ||
	    !queue_create(&tx, TRANSMIT, &tx_buffers))
		return false;
	tx.avail->flags = AVAIL_NO_INTERRUPT; // what was sent is looked up when sending again
	tx_free = buffer_count(&tx);
	for (uint16_t i = 0; i < buffer_count(&rx); i++) {
		rx.desc[i].len = BUFFER;
		rx.desc[i].flags = DESC_WRITE;
		queue_offer(&rx, i);
	}
	virtio_set_status(virtio_status() | VIRTIO_STATUS_DRIVER_OK);
	virtio_notify(RECEIVE);
	return true;
}

bool net_device_start(uint8_t mac[6], uint16_t *mtu)
{
	enum { MTU = 10 }; // its offset in struct virtio_net_config

	if (!start()) {
		virtio_set_status(VIRTIO_STATUS_FAILED);
		return false;
	}
	for (unsigned i = 0; i < 6; i++)
		mac[i] = virtio_config8(i);
	*mtu = 0;
	if (advises_mtu)
		*mtu = (uint16_t)(virtio_config8(MTU) | virtio_config8(MTU + 1) << 8);
	return true;
}

// Frames are sent in order and descriptors are used in turn, so those that are
// free are always the ones that follow.
void *net_device_send(void)
{
	uint16_t used = tx.used->idx;

	tx_free = (uint16_t)(tx_free + (uint16_t)(used - tx.last_used));
	tx.last_used = used;
	if (tx_free == 0)
		return NULL;
	virtio_barrier();
	return tx_buffers + (size_t)(tx.avail->idx % buffer_count(&tx)) * BUFFER + header_len;
}

void net_device_sent(size_t len)
{
	uint16_t id = tx.avail->idx % buffer_count(&tx);

	memset(tx_buffers + (size_t)id * BUFFER, 0, header_len);
	tx.desc[id].len = (uint32_t)(header_len + len);
	tx.desc[id].flags = 0;
	tx_free--;
	queue_offer(&tx, id);
	if (!(tx.used->flags & 1)) // the device asks not to be told
		virtio_notify(TRANSMIT);
}

static uint32_t next_id(void)
{
	return rx.used->ring[rx.last_used % rx.size].id;
}

const void *net_device_receive(size_t *len)
{
	uint32_t total;

	while (rx.last_used != rx.used->idx) {
		virtio_barrier();
		total = rx.used->ring[rx.last_used % rx.size].len;
		if (total > header_len && total <= BUFFER && next_id() < buffer_count(&rx)) {
			*len = total - header_len;
			return rx_buffers + (size_t)next_id() * BUFFER + header_len;
		}
		net_device_received();
	}
	return NULL;
}

void net_device_received(void)
{
	uint16_t id = (uint16_t)(next_id() % buffer_count(&rx));

	rx.last_used++;
	queue_offer(&rx, id);
	if (!(rx.used->flags & 1))
		virtio_notify(RECEIVE);
}
